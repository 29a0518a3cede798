"""`python -m selfdistill.comparison.child_process PROGRAM ARGS`: a program, tied to its parent.

The parent holds the other end of stdin, which the system closes however the parent ends. The run
then saves and stops, so that a study that is killed leaves no process behind.
"""

import os
import runpy
import signal
import sys
import threading
from collections.abc import Sequence


def terminate_with(pipe: int) -> None:
    """Send SIGTERM to this process once a pipe ends."""

    def wait() -> None:
        while os.read(pipe, 1):
            pass
        os.kill(os.getpid(), signal.SIGTERM)

    threading.Thread(target=wait, daemon=True).start()


def run_program(program: str, arguments: Sequence[str]) -> None:
    """Run a module, or a file that ends in .py, as Python's own command does."""
    sys.argv = [program, *arguments]
    if program.endswith(".py"):
        sys.path.insert(0, os.path.dirname(program))
        runpy.run_path(program, run_name="__main__")
    else:
        runpy.run_module(program, run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    terminate_with(sys.stdin.fileno())
    run_program(sys.argv[1], sys.argv[2:])
