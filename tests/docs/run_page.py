"""Run the blocks of one page in order, in the working directory: python run_page.py PAGE.

Python blocks share one set of names, each bash block is a shell of its own. Stops at the first
block that fails or takes more than two minutes; what it started is left to the caller to end.
"""

import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

from blocks import RUN, Block, blocks

SECONDS = 300


def run_page(page: Path) -> None:
    names: dict[str, Any] = {"__name__": "__main__"}
    sys.path[0] = str(Path.cwd())  # as for a script that is started there
    signal.signal(signal.SIGALRM, _too_long)
    for block in blocks(page.read_text(encoding="utf-8")):
        if block.excuse:
            continue
        print(f"--- {page.name}, line {block.line}", flush=True)
        signal.alarm(SECONDS)
        _run(block, page, names)
        signal.alarm(0)


def _run(block: Block, page: Path, names: dict[str, Any]) -> None:
    if block.title:
        Path(block.title).write_text(block.code, encoding="utf-8")
    elif block.language == "python":
        above = "\n" * block.line  # so that a traceback names the page's own lines
        exec(compile(above + block.code, page, "exec"), names)
    elif block.language in RUN:
        subprocess.run(["bash", "-euo", "pipefail", "-c", block.code], check=True)


def _too_long(*_: Any) -> None:
    raise TimeoutError(f"took more than {SECONDS} seconds")


if __name__ == "__main__":
    run_page(Path(sys.argv[1]))
