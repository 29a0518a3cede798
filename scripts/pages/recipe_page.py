"""docs/reference/recipe.md: every key of a recipe."""

import types
import typing
from typing import Any

from markup import choices, table
from method_pages import MADE

from selfdistill.recipe.schema import Recipe, type_name

INTRODUCTION = """\
A recipe is everything that makes a run: flat, complete, TOML. Every run keeps its own as
`recipe.toml`, and `selfdistill train --recipe FILE` starts from one; what is given beside it has
the last word. A key that is left out takes its default, an unknown one is refused.

```toml title="small.toml"
method = "muse"
data = "digits"
epochs = 2
lr = 0.05

[options]
combine = "mul"
```

```bash
selfdistill train --recipe small.toml --set information_weight=0.2 --set batch_size=128
```

`--set KEY=VALUE` reaches every key below, and the method's own options, which stand under
`[options]` in the file; [its page](../methods/index.md) has them."""


def pages() -> dict[str, str]:
    """The page, by its path below docs/."""
    rows = [
        [f"`{key}`", choices(_type(field.annotation)), _default(field.default), field.description]
        for key, field in Recipe.model_fields.items()
        if key != "options"
    ]
    made = table(("key", "type", "default", "meaning"), rows)
    return {"reference/recipe.md": "\n\n".join([MADE, "# Recipe", INTRODUCTION, made]) + "\n"}


def _type(annotation: Any) -> str:
    """As a user would write it; bounds are left to the check."""
    origin, inner = typing.get_origin(annotation), typing.get_args(annotation)
    if origin is typing.Annotated:
        return _type(inner[0])
    if origin in (typing.Union, types.UnionType):
        return " | ".join(_type(part) for part in inner)
    if origin is tuple:
        return f"list of {_type(inner[0])}"
    return type_name(annotation)


def _default(value: Any) -> str:
    if value in (None, "", ()):
        return "none"
    return f"`{str(value).lower() if isinstance(value, bool) else value}`"
