"""`selfdistill models`: the networks that can be trained by name."""

from itertools import groupby
from typing import Annotated

import typer
from rich.columns import Columns

from .screen import OUT, line

_FEW = 60  # names of a family that fill a screen


def models(
    pattern: Annotated[
        str, typer.Argument(metavar="[FILTER]", help="Part of a name, or a pattern: 'resnet*'.")
    ] = "",
) -> None:
    """List the networks that can be trained by name."""
    from ..core import ConfigError
    from ..models import list_models

    found = list_models(pattern)
    if not found:
        raise ConfigError(f"no network matches '{pattern}'{_nearest(pattern)}")
    for family, members in groupby(found, key=lambda name: name.partition("/")[0]):
        _show(family, list(members), cut=not pattern)


def _show(family: str, members: list[str], cut: bool) -> None:
    if not OUT.is_terminal:  # one a line, for grep and its kin
        for name in members:
            line(name)
        return
    line(f"{family} ({len(members)})", "bold")
    shown = members[:_FEW] if cut else members
    OUT.print(Columns(shown, padding=(0, 2), column_first=True))
    if len(shown) < len(members):
        left = len(members) - len(shown)
        line(f"… and {left} more; selfdistill models {family}/ lists them", "dim")
    line()


def _nearest(pattern: str) -> str:
    """A hint among names with or without their family, as the pattern has one or not."""
    from ..core import nearest
    from ..models import list_models

    word = pattern.strip("*?[]").lower()
    known = (
        list_models() if "/" in word else dict.fromkeys(n.partition("/")[2] for n in list_models())
    )
    return nearest(word, known)
