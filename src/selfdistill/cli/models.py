"""`selfdistill models`: networks that can be trained by name."""

from itertools import groupby
from typing import Annotated

import typer
from rich.columns import Columns

from ..runs.terminal import console
from .console import echo

_MAX_NAMES = 60  # of a family, which fill a screen


def models(
    pattern: Annotated[
        str, typer.Argument(metavar="[FILTER]", help="Part of a name, or a pattern like 'resnet*'.")
    ] = "",
    imports: Annotated[
        list[str] | None,
        typer.Option("--import", metavar="MODULE", help="Python module or file to import first."),
    ] = None,
) -> None:
    """List the networks that can be trained by name."""
    from ..core import ConfigError
    from ..models import list_models
    from ..recipe.plugins import import_plugins

    import_plugins(imports or ())
    matches = list_models(pattern)
    if not matches:
        raise ConfigError(f"no network matches '{pattern}'{_nearest(pattern)}")
    for family, members in groupby(matches, key=lambda name: name.partition("/")[0]):
        _show(family, list(members), cut=not pattern)


def _show(family: str, members: list[str], cut: bool) -> None:
    if not console.is_terminal:  # one a line, for grep and its kin
        for name in members:
            echo(name)
        return
    echo(f"{family} ({len(members)})", "bold")
    shown = members[:_MAX_NAMES] if cut else members
    console.print(Columns(shown, padding=(0, 2), column_first=True))
    if len(shown) < len(members):
        hidden = len(members) - len(shown)
        echo(f"… and {hidden} more; selfdistill models {family}/ lists them", "dim")
    echo()


def _nearest(pattern: str) -> str:
    """Hint among names with or without their family, as the pattern has one or not."""
    from ..core import nearest
    from ..models import list_models

    name = pattern.strip("*?[]").lower()
    known = (
        list_models() if "/" in name else dict.fromkeys(n.partition("/")[2] for n in list_models())
    )
    return nearest(name, known)
