"""Whatever goes wrong is told in one sentence, and has an exit code."""

import errno
import functools
import os
import sys
import traceback
import warnings
from collections.abc import Callable
from typing import Any

from .console import echo_stderr, rank_zero

_OUT_OF_MEMORY = ("can't allocate memory", "out of memory", "not enough memory")
_FORBIDDEN = {errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOSPC, errno.EDQUOT}

# Noise of others that no user of ours can act on: {beginning of the message, as a pattern}.
_NOISE = (
    r"`isinstance\(treespec, LeafSpec\)` is deprecated",
    r"`broadcast_buffers` is deprecated",  # and to be kept, as it says itself, until a later torch
    r"The ``compute`` method of metric .* was called before the ``update`` method",
)


def handle_errors(command: Callable[..., None]) -> Callable[..., None]:
    """The command, with faults as `error: …` and warnings as `warning: …` on stderr."""

    @functools.wraps(command)
    def run(*args: Any, **keys: Any) -> None:
        try:
            with warnings.catch_warnings():
                _tell_warnings()
                command(*args, **keys)
                sys.stdout.flush()
        except KeyboardInterrupt:
            echo_stderr("error", "stopped")
            raise SystemExit(130) from None
        except BrokenPipeError:  # `selfdistill models | head`: nobody is left to be told
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            raise SystemExit(141) from None
        except Exception as fault:
            sentence, code = error_message(fault)
            if not sentence:
                traceback.print_exc()
                sentence = "this is a bug in selfdistill; please report it with the lines above"
            echo_stderr("error", sentence)
            raise SystemExit(code) from None

    return run


def error_message(fault: Exception) -> tuple[str, int]:
    """What to say of a fault, and the exit code; nothing to say means that it is a bug of ours."""
    from torch import OutOfMemoryError

    from ..core import SelfdistillError

    if isinstance(fault, SelfdistillError):
        return str(fault), fault.exit_code
    lightning = sys.modules.get("lightning_fabric.utilities.exceptions")  # slow to import
    if lightning and isinstance(fault, lightning.MisconfigurationException):
        return str(fault).splitlines()[0], 2
    words = str(fault).lower()
    starved = isinstance(fault, RuntimeError) and any(w in words for w in _OUT_OF_MEMORY)
    if starved or isinstance(fault, MemoryError | OutOfMemoryError):
        return "the memory is full; lower --batch-size, or split it by --accumulation-steps 2", 7
    if isinstance(fault, OSError) and fault.errno in _FORBIDDEN:
        place = f": {fault.filename}" if fault.filename else ""
        return f"{(fault.strerror or 'not allowed').lower()}{place}", 7
    return "", 1


def _tell_warnings() -> None:
    """From here on a warning is one line without the place in the code; ranks but 0 are quiet."""

    def show(message: Warning | str, *rest: Any, **more: Any) -> None:
        if rank_zero():
            echo_stderr("warning", str(message))

    warnings.showwarning = show
    for noise in _NOISE:
        warnings.filterwarnings("ignore", noise)
