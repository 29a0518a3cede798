"""`selfdistill methods`: list of the methods, and the options of one of them."""

from typing import Annotated

import typer
from rich.text import Text

from ..runs.terminal import console
from .console import echo, table

_KINDS = {
    "baseline": "plain training",
    "self": "the student teaches itself",
    "online": "networks that start together teach each other; --peer MODEL",
    "offline": "a trained teacher; --teacher RUN, WEIGHTS or timm/NAME",
}


def methods(
    name: Annotated[
        str | None, typer.Argument(help="Method to explain, with all its options.")
    ] = None,
    imports: Annotated[
        list[str] | None,
        typer.Option("--import", metavar="MODULE", help="Python module or file to import first."),
    ] = None,
) -> None:
    """List the methods, or explain one of them."""
    from .. import methods as _all  # noqa: F401  importing them is what registers them
    from ..recipe.options import method_classes
    from ..recipe.plugins import import_plugins

    import_plugins(imports or ())
    if name:
        for part in method_classes(name):
            _explain(part)
    else:
        _list()


def _list() -> None:
    from ..core import METHODS, Provenance
    from ..recipe.method_docs import paper_url, summary, supported_tasks

    for kind, meaning in _KINDS.items():
        listing = table("method", "what it does", "tasks", "implemented from", "paper")
        for name in (name for name in METHODS if METHODS[name].kind == kind):
            method = METHODS[name]
            listing.add_row(
                Text(name, style="bold"),
                summary(method),
                supported_tasks(method),
                method.provenance.name.lower(),
                paper_url(method),
            )
        echo(f"{kind}: {meaning}", "bold")
        console.print(listing)
        echo()
    for provenance in Provenance:
        echo(f"implemented from {provenance.name.lower()}: {provenance.value}", "dim")
    echo(
        "\nselfdistill methods NAME explains one; selfdistill train --method NAME uses it, and "
        "A+B joins two.",
        "dim",
    )


def _explain(name: str) -> None:
    from ..core import METHODS, options
    from ..recipe.method_docs import description, plain_paragraphs, summary, supported_tasks
    from ..recipe.schema import type_name

    method = METHODS[name]
    echo(f"{name}: {summary(method)}\n", "bold")
    tasks = supported_tasks(method)
    echo(f"{method.kind}; tasks: {tasks}; implemented from: {method.provenance}\n")
    for paragraph in plain_paragraphs(description(method)):
        console.print(paragraph + "\n", soft_wrap=paragraph.startswith(" "))
    known = options(method)
    if not known:
        echo("It has no options.")
        return
    listing = table("option", "type", "default", "meaning")
    for option in known.values():
        default = "none" if option.default is None else str(option.default).lower()
        listing.add_row(option.name, type_name(option.annotation), default, option.meaning)
    console.print(listing)
    first = next(iter(known.values()))
    echo(f"\nSet one by --set {first.name}={str(first.default).lower()}", "dim")
