"""The command on hostile files, in a forked process with little memory and a canary."""

import contextlib
import io
import multiprocessing
import os
import pickle
import resource
import runpy
import sys
import warnings
from pathlib import Path
from typing import NamedTuple

import selfdistill.cli

SPARE = 2 << 30  # bytes beyond those of this process
SECONDS = 60  # a bound on what would never end, on a machine that is busy
CANARY = "canary"
KEPT = Path(__file__).parents[1] / "runs" / "kept"
# forks of a process that has imported the libraries and nothing else: autograd runs in no fork of
# one that has used it
SERVER = multiprocessing.get_context("forkserver")
SERVER.set_forkserver_preload(
    ["selfdistill.cli", "selfdistill.reporting.run_page", "selfdistill.runs.train"]
)
runpy.run_path(str(KEPT / "network.py"))


class Bomb:
    """A pickle that makes the canary when it is read."""

    def __reduce__(self):
        return os.mkdir, (CANARY,)


BOMB = pickle.dumps(Bomb())


class Answer(NamedTuple):
    code: int
    err: str


def ask(*arguments: object) -> Answer:
    """What the command answers; the working directory is the caller's."""
    ours, theirs = SERVER.Pipe(duplex=False)
    process = SERVER.Process(
        target=_answer, args=([*map(str, arguments)], os.getcwd(), dict(os.environ), theirs)
    )
    process.start()
    theirs.close()
    try:
        assert ours.poll(SECONDS), "it never ends"
        return Answer(*ours.recv())
    finally:
        process.kill()
        process.join()


def _answer(arguments: list[str], folder: str, environment: dict[str, str], pipe) -> None:
    os.chdir(folder)
    os.environ.clear()
    os.environ.update(environment)
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    limit = pages * os.sysconf("SC_PAGE_SIZE") + SPARE
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
    warnings.resetwarnings()
    sys.argv = ["selfdistill", *arguments]
    err = io.StringIO()
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(err):
        try:
            selfdistill.cli.main()
            code = 0
        except SystemExit as end:
            code = end.code or 0
    pipe.send((code, err.getvalue()))
    pipe.close()


def assert_refused(*arguments: object) -> str:
    """One sentence and an exit code of its own; nothing ran and the memory was enough."""
    answer = ask(*arguments)
    errors = [line for line in answer.err.splitlines() if line.startswith("error: ")]
    assert answer.code in (2, 4, 6, 7), answer
    assert "Traceback" not in answer.err
    assert "memory is full" not in answer.err, answer
    assert len(errors) == 1, answer
    assert len(answer.err) < 3000
    assert not Path(CANARY).exists()
    return errors[0]


def assert_harmless(*arguments: object) -> None:
    """Refused as above, or used without harm."""
    answer = ask(*arguments)
    assert answer.code in (0, 2, 4, 6, 7), answer
    assert "Traceback" not in answer.err
    assert "memory is full" not in answer.err, answer
    assert not Path(CANARY).exists()
