"""docs/reference/recipe.md: every key of a recipe."""

import types
import typing
from typing import Any

from markup import choices, table
from method_pages import MADE
from pydantic.fields import FieldInfo

from selfdistill.cli.options import option_name
from selfdistill.recipe.fields import Recipe, default_text
from selfdistill.recipe.schema import type_name

INTRODUCTION = """\
A recipe is everything that makes a run: flat, complete, TOML. Every run keeps its own as
`recipe.toml`, and `selfdistill train --recipe FILE` starts from one; options given beside it
override it. A key that is left out takes its default, an unknown one is refused.

```toml title="small.toml"
method = "muse"
data = "digits"
epochs = 2
lr = 0.05

[options]
combine = "mul"
```

```bash
selfdistill train --recipe small.toml --batch-size 128 --set combine=add
```

Every key is an option of `train` and `doctor`, and, save for `method` and `seed`, of `compare`. The
method's own options stand under `[options]` in the file, [its page](../methods/index.md) has them,
and `--set NAME=VALUE` gives them on the command line."""
BOUNDS = {"ge": "≥", "gt": ">", "le": "≤", "lt": "<"}


def pages() -> dict[str, str]:
    """The page, by its path below docs/."""
    panels: dict[str, list[list[str]]] = {}
    for key, field in Recipe.model_fields.items():
        extra: Any = field.json_schema_extra
        if extra:
            panels.setdefault(extra["panel"], []).append(_row(key, field))
    parts = [MADE, "# Recipe", INTRODUCTION]
    for panel, rows in panels.items():
        parts += [f"## {panel}", table(("key", "option", "type", "default", "meaning"), rows)]
    return {"reference/recipe.md": "\n\n".join(parts) + "\n"}


def _row(key: str, field: FieldInfo) -> list[str]:
    default = default_text(field)
    shown = default if field.default in (None, "", ()) else f"`{default}`"
    kind = ", ".join([choices(_type(field.annotation)), *_bounds(field)])
    return [f"`{key}`", f"`{option_name(key)}`", kind, shown, field.description or ""]


def _type(annotation: Any) -> str:
    """As a user would write it."""
    origin, inner = typing.get_origin(annotation), typing.get_args(annotation)
    if origin is typing.Annotated:
        return _type(inner[0])
    if origin in (typing.Union, types.UnionType):
        return " | ".join(_type(part) for part in inner if part is not type(None))
    if origin is tuple:
        return f"list of {_type(inner[0])}"
    return type_name(annotation)


def _bounds(field: FieldInfo) -> list[str]:
    """`≥ 0` and `< 1` of a field's constraints."""
    return [
        f"{sign} {getattr(bound, name):g}"
        for bound in field.metadata
        for name, sign in BOUNDS.items()
        if hasattr(bound, name)
    ]
