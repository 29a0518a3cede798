"""`selfdistill methods`: what there is to train with, and what can be tuned."""

import inspect
import re
from typing import TYPE_CHECKING, Annotated

import typer
from rich.text import Text

from .console import console, echo, table

if TYPE_CHECKING:
    from ..core import Method


def methods(
    name: Annotated[str | None, typer.Argument(help="Show this one and its options.")] = None,
) -> None:
    """List the methods, or explain one of them."""
    from .. import methods as _all  # noqa: F401  importing them is what registers them
    from ..core import METHODS

    if name:
        return _explain(name)
    for kind, words in _KINDS.items():
        made = table("method", "what it does", "tasks", "certain by", "paper")
        for each in (n for n in METHODS if METHODS[n].kind == kind):
            method, doc = METHODS[each], inspect.getdoc(METHODS[each]) or ""
            summary = doc.partition("\n")[0]
            certain = method.provenance.name.lower()
            made.add_row(Text(each, style="bold"), summary, _tasks(method), certain, _paper(doc))
        echo(f"{kind}: {words}", "bold")
        console.print(made)
        echo()
    _legend()
    return None


_KINDS = {
    "baseline": "plain training",
    "self": "the student teaches itself",
    "online": "networks that start together teach each other; --peer MODEL",
    "offline": "a trained teacher; --teacher RUN, WEIGHTS or timm/NAME",
}


def _legend() -> None:
    from ..core import Provenance

    for evidence in Provenance:
        echo(f"certain by {evidence.name.lower()}: {evidence.value}", "dim")
    echo(
        "\nselfdistill methods NAME explains one; selfdistill train --method NAME uses it, and "
        "A+B joins two.",
        "dim",
    )


def _tasks(method: "type[Method]") -> str:
    """Which tasks a method serves, by what it needs of them."""
    from ..recipe.build_method import unsupported_reason
    from ..tasks import TASKS

    served = [name for name, task in TASKS.items() if not unsupported_reason(method, task)]
    return "any" if len(served) == len(TASKS) else ", ".join(served)


def _explain(name: str) -> None:
    from ..core import METHODS, options
    from ..recipe.schema import type_name

    summary, _, rest = (inspect.getdoc(METHODS[name]) or "").partition("\n")
    method = METHODS[name]
    echo(f"{name}: {summary}\n", "bold")
    echo(f"{method.kind}; tasks: {_tasks(method)}; certain by: {method.provenance}\n")
    for paragraph in readable(rest.partition("Args:\n")[0]):
        console.print(paragraph + "\n", soft_wrap=paragraph.startswith(" "))
    known = options(METHODS[name])
    if not known:
        echo("It has no options.")
        return
    made = table("option", "type", "default", "meaning")
    for option in known.values():
        default = "none" if option.default is None else str(option.default).lower()
        made.add_row(option.name, type_name(option.annotation), default, option.meaning)
    console.print(made)
    first = next(iter(known.values()))
    echo(f"\nSet one by --set {first.name}={str(first.default).lower()}", "dim")


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
