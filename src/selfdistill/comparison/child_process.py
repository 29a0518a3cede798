"""`python -m selfdistill.comparison.child_process ARGS`: `selfdistill ARGS`, ended with its parent.

The parent holds the other end of stdin, which the system closes however the parent ends: a study
that is killed leaves no runs behind that nobody watches. They save, and stop.
"""

import os
import runpy
import signal
import sys
import threading


def follow() -> None:
    """Wait for the end of stdin; then ask this process to stop."""
    while os.read(sys.stdin.fileno(), 1):
        pass
    os.kill(os.getpid(), signal.SIGTERM)


if __name__ == "__main__":
    threading.Thread(target=follow, daemon=True).start()
    sys.argv[0] = "selfdistill"
    runpy.run_module("selfdistill", run_name="__main__")
