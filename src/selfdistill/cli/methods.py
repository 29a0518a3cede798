"""`selfdistill methods`: what there is to train with, and what can be tuned."""

import inspect
import re
from typing import Annotated

import typer
from rich.text import Text

from .screen import OUT, line, table


def methods(
    name: Annotated[str | None, typer.Argument(help="Show this one and its options.")] = None,
) -> None:
    """List the methods, or explain one of them."""
    from .. import methods as _all  # noqa: F401  importing them is what registers them
    from ..core import METHODS

    if name:
        return _explain(name)
    made = table("method", "what it does", "paper")
    for each in METHODS:
        doc = inspect.getdoc(METHODS[each]) or ""
        made.add_row(Text(each, style="bold"), doc.partition("\n")[0], _paper(doc))
    OUT.print(made)
    line("\nselfdistill methods NAME explains one; selfdistill train --method NAME uses it.", "dim")
    return None


def _explain(name: str) -> None:
    from ..core import METHODS, options
    from ..recipe.schema import type_name

    summary, _, rest = (inspect.getdoc(METHODS[name]) or "").partition("\n")
    line(f"{name}: {summary}\n", "bold")
    for paragraph in readable(rest.partition("Args:\n")[0]):
        OUT.print(paragraph + "\n", soft_wrap=paragraph.startswith(" "))
    known = options(METHODS[name])
    if not known:
        line("It has no options.")
        return
    made = table("option", "type", "default", "meaning")
    for option in known.values():
        default = "none" if option.default is None else str(option.default).lower()
        made.add_row(option.name, type_name(option.annotation), default, option.meaning)
    OUT.print(made)
    first = next(iter(known.values()))
    line(f"\nSet one by --set {first.name}={str(first.default).lower()}", "dim")


def _paper(doc: str) -> str:
    found = re.search(r"https?://[^\s),;]+", doc)
    return found[0].rstrip(".") if found else ""


def readable(doc: str) -> list[str]:
    """A docstring's paragraphs on one line each; equations keep their lines, directives go."""
    plain = re.sub(r":math:`([^`]*)`", r"\1", doc)
    blocks = [block for block in re.split(r"\n\s*\n", plain) if block.strip()]
    paragraphs, equation = [], False
    for block in blocks:
        equation = equation and block.startswith(" ")
        if block.lstrip().startswith(".. math::"):
            block, equation = block.lstrip().removeprefix(".. math::"), True
        lines = [part.strip() for part in block.splitlines() if part.strip()]
        if equation:
            paragraphs += ["\n".join(f"    {part}" for part in lines)] if lines else []
        else:
            paragraphs.append(" ".join(lines))
    return paragraphs
