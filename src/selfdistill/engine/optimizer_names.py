"""Names of optimizers. Imports neither torch nor timm, whose names are read from its source."""

import re
from functools import cache
from importlib.util import find_spec
from pathlib import Path

from ..errors import ConfigError, nearest, shortened

BUILT_IN = ("sgd", "adamw")
"""Optimizers of torch; all others are timm's."""


def check_optimizer_name(name: str) -> None:
    """Refuse a name that neither torch's two nor timm's optimizers have.

    Raises:
        ConfigError: there is none of that name.
    """
    if name in BUILT_IN or name in timm_optimizers():
        return
    hint = nearest(name.lower(), dict.fromkeys([*BUILT_IN, *timm_optimizers()]))
    raise ConfigError(
        f"there is no optimizer '{shortened(name)}'{hint}; it is sgd, adamw or the name of one of "
        "timm's (timm.optim.list_optimizers())"
    )


@cache
def timm_optimizers() -> tuple[str, ...]:
    """Names that timm registers; none where it is installed in another form."""
    spec = find_spec("timm")
    folders = spec.submodule_search_locations if spec else None
    file = Path(folders[0], "optim", "_optim_factory.py") if folders else Path()
    if not file.is_file():
        return ()
    registered = re.findall(r"(?:\bname=|register_alias\()['\"](\w+)['\"]", file.read_text("utf-8"))
    return tuple(dict.fromkeys(registered))
