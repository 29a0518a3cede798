"""The code blocks of a page of documentation."""

import re
import shlex
import textwrap
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).parents[2]
RUN = ("bash", "python")
SHOWN = ("", "text", "toml", "json")
"""Languages that are read only; with a title they are written to that file, too."""

_FENCE = re.compile(r"(?P<indent> *)(?P<ticks>`{3,})(?P<language>[\w-]*)(?P<rest>.*)")
_EXCUSE = re.compile(r"\s*<!-- not run: (.+) -->")


class Block(NamedTuple):
    """One fenced block.

    Attributes:
        language: as the fence says.
        line: of the fence, from 1.
        code: what stands in it, without its indentation.
        title: the file that it is written to instead of being run; empty for none.
        excuse: why it is not run, from the comment before it; empty if it is.
    """

    language: str
    line: int
    code: str
    title: str
    excuse: str


def pages() -> list[Path]:
    """The README and every page of the site."""
    return [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]


def blocks(page: str) -> list[Block]:
    """All fenced blocks of a page, those inside of HTML comments among them."""
    lines = page.splitlines()
    found, start, fence = [], 0, None
    for number, line in enumerate(lines):
        match = _FENCE.fullmatch(line)
        if fence is None and match:
            start, fence = number, match
        elif fence is not None and line.strip() == fence["ticks"]:
            found.append(_block(lines, start, number, fence))
            fence = None
    return found


def own_commands(code: str) -> list[list[str]]:
    """Arguments of each command of a shell block that holds nothing but `selfdistill ARGUMENTS`.

    Empty where a command is another, or where a shell would read more than words and quotes.
    """
    if set(code) & set("$`|&;<>(){}*?[]~!"):
        return []
    lines = [shlex.split(line, comments=True) for line in code.replace("\\\n", " ").splitlines()]
    commands = [words for words in lines if words]
    if any(words[0] != "selfdistill" for words in commands):
        return []
    return [words[1:] for words in commands]


def _block(lines: list[str], start: int, end: int, fence: re.Match[str]) -> Block:
    before = next((line for line in reversed(lines[:start]) if line.strip()), "")
    excuse, title = _EXCUSE.fullmatch(before), re.search(r'title="([^"]+)"', fence["rest"])
    code = textwrap.dedent("\n".join(lines[start + 1 : end])) + "\n"
    return Block(
        fence["language"],
        start + 1,
        code,
        title[1] if title else "",
        excuse[1].strip() if excuse else "",
    )
