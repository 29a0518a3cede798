"""`python -m selfdistill.comparison.child_process ARGS`: `selfdistill ARGS`, tied to its parent.

The parent holds the other end of stdin, which the system closes however the parent ends. The run
then saves and stops, so that a study that is killed leaves no process behind.
"""

import os
import runpy
import signal
import sys
import threading


def terminate_with_parent() -> None:
    """Wait for the end of stdin; then send SIGTERM to this process."""
    while os.read(sys.stdin.fileno(), 1):
        pass
    os.kill(os.getpid(), signal.SIGTERM)


if __name__ == "__main__":
    threading.Thread(target=terminate_with_parent, daemon=True).start()
    sys.argv[0] = "selfdistill"
    runpy.run_module("selfdistill", run_name="__main__")
