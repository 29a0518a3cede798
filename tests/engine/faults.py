"""Faults of a training process at a moment that was drawn: a kill, a signal, a full disk."""

import errno
import os
import signal
import sys
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

from selfdistill.engine import checkpoint
from selfdistill.engine.trainer import Trainer

EVENTS = {"open", "os.rename", "os.remove", "os.mkdir", "os.rmdir", "os.listdir", "shutil.rmtree"}


class Fault(NamedTuple):
    """What happens to a process, and when.

    Attributes:
        kind: "step": SIGKILL after a step; "event": SIGKILL before an access to the run's files;
            "torn": SIGKILL while a file is written; "full": no space from a write on; "term":
            SIGTERM after a step; "": nothing.
        number: of the step, event or write, from 1.
        part: of the file that gets written.
    """

    kind: str = ""
    number: int = 0
    part: float = 0.5


def arm(fault: Fault, out: Path) -> Counter[str]:
    """Let a fault strike in this process; the numbers of accesses and writes so far."""
    counts: Counter[str] = Counter()

    def watch(event: str, args: tuple[Any, ...]) -> None:
        if event in EVENTS and any(str(arg).startswith(str(out)) for arg in args):
            counts["event"] += 1
            if fault.kind == "event" and counts["event"] == fault.number:
                os.kill(os.getpid(), signal.SIGKILL)

    def wrap(holder: Any, name: str, path_of: Callable[..., Path]) -> None:
        write = getattr(holder, name)

        def faulty(*args: Any, **keys: Any) -> Any:
            path = path_of(*args)
            if not path.is_relative_to(out):
                return write(*args, **keys)
            counts["write"] += 1
            full = fault.kind == "full" and counts["write"] >= fault.number
            torn = fault.kind == "torn" and counts["write"] == fault.number
            written = write(*args, **keys)
            if full or torn:
                tear(path, fault.part)
            if torn:
                os.kill(os.getpid(), signal.SIGKILL)
            if full:
                raise OSError(errno.ENOSPC, "No space left on device", str(path))
            return written

        setattr(holder, name, faulty)

    def step(trainer: Trainer, *args: Any) -> None:
        take_step(trainer, *args)
        number = {"step": signal.SIGKILL, "term": signal.SIGTERM}.get(fault.kind)
        if number and trainer.global_step == fault.number:
            os.kill(os.getpid(), number)

    take_step, Trainer.step = Trainer.step, step
    sys.addaudithook(watch)
    wrap(os, "fsync", lambda handle: Path(os.readlink(f"/proc/self/fd/{handle}")))
    wrap(Path, "write_bytes", lambda path, *rest: path)
    wrap(Path, "write_text", lambda path, *rest: path)
    wrap(checkpoint, "save_file", lambda tensors, path: Path(path))
    return counts


def tear(path: Path, part: float) -> None:
    """Cut a file off; of a log, whose other lines were flushed before, the last line."""
    if path.is_dir():
        return
    content = path.read_bytes()
    start = content[:-1].rfind(b"\n") + 1 if path.suffix == ".jsonl" else 0
    os.truncate(path, start + int((len(content) - start) * part))
