"""Docstrings and tables as markdown."""

import html
import re
from collections.abc import Sequence


def table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table; bars inside of cells are written so that no reader of markdown trips over them."""
    lines = [[re.sub(r"`[^`]*`", _coded, cell) for cell in row] for row in rows]
    marks = ["---"] * len(header)
    return "\n".join(f"| {' | '.join(line)} |" for line in (header, marks, *lines))


def _coded(span: re.Match[str]) -> str:
    # between backticks some want an escaped bar and others show the escape
    code = html.escape(span[0].strip("`"), quote=False).replace("|", "&#124;")
    return f"<code>{code}</code>" if "|" in span[0] else span[0]


def choices(name: str) -> str:
    """`add | mul` as a list of words in code."""
    words = [f"`{part}`" for part in name.split(" | ")]
    return " or ".join(filter(None, [", ".join(words[:-1]), words[-1]]))


def with_maths(doc: str) -> str:
    r"""A docstring with its `:math:` between dollars and its `.. math::` between double ones."""
    inline = re.sub(r":math:`([^`]*)`", r"$\1$", doc)
    blocks = re.split(r"\n\s*\n", inline.strip("\n"))
    return "\n\n".join(_displayed(block) for block in blocks if block.strip())


def _displayed(block: str) -> str:
    _, found, equation = block.partition(".. math::")
    if not found:
        return block
    lines = [line.strip() for line in equation.splitlines() if line.strip()]
    body = "\n".join(lines)
    if "&" in body:
        body = f"\\begin{{aligned}}\n{body}\n\\end{{aligned}}"
    return f"$$\n{body}\n$$"
