"""Run the blocks of one page in order, in the working directory: python run_page.py PAGE.

Python blocks share one set of names. A bash block that holds nothing but our own commands is run
without a shell, in processes that a server forks, since what they import takes longer than what
they do; any other is a shell of its own. Stops at the first block that fails or takes too long;
what it started is left to the caller to end.
"""

import os
import signal
import subprocess
import sys
from multiprocessing.connection import Pipe
from pathlib import Path
from typing import Any

from blocks import RUN, Block, blocks, own_commands

from selfdistill.comparison.fork_server import ForkServer, serve

SECONDS = 300
OUTPUT = Path("/proc/self/fd/1")  # what a forked process writes to, whatever that is


def run_page(page: Path) -> None:
    if os.getpgrp() != os.getpid():
        os.setsid()  # so that all that is started can be ended
    server = ForkServer(_forked_server())
    names: dict[str, Any] = {"__name__": "__main__"}
    sys.path[0] = str(Path.cwd())  # as for a script that is started there
    signal.signal(signal.SIGALRM, _too_long)
    for block in blocks(page.read_text(encoding="utf-8")):
        if block.excuse:
            continue
        print(f"--- {page.name}, line {block.line}", flush=True)
        signal.alarm(SECONDS)
        _run(block, page, names, server)
        signal.alarm(0)


def _forked_server() -> Any:
    """Connection to a server; it is forked before a block can start a thread."""
    connection, server_end = Pipe()
    if os.fork() == 0:
        connection.close()
        serve(server_end)
        sys.exit()
    server_end.close()
    return connection


def _run(block: Block, page: Path, names: dict[str, Any], server: ForkServer) -> None:
    if block.title:
        Path(block.title).write_text(block.code, encoding="utf-8")
    elif block.language == "python":
        above = "\n" * block.line  # so that a traceback names the page's own lines
        exec(compile(above + block.code, page, "exec"), names)
    elif block.language in RUN and (commands := own_commands(block.code)):
        for arguments in commands:
            if code := server.start("selfdistill", arguments, OUTPUT).wait():
                sys.exit(code)
    elif block.language in RUN:
        subprocess.run(["bash", "-euo", "pipefail", "-c", block.code], check=True)


def _too_long(*_: Any) -> None:
    raise TimeoutError(f"took more than {SECONDS} seconds")


if __name__ == "__main__":
    run_page(Path(sys.argv[1]))
