"""Command-line options of a recipe, generated from the fields of `Recipe`."""

import functools
import inspect
import types
import typing
from collections.abc import Callable, Collection
from pathlib import Path
from typing import Annotated, Any, Literal

import typer
from pydantic.fields import FieldInfo

from ..errors import ConfigError
from ..recipe.fields import Recipe, default_text

_RECIPE = "Recipe and run"


def points_as_part(points: float, option: str) -> float:
    """Points of a score as a part of it, in [0, 1).

    Raises:
        ConfigError: they are not in [0, 100).
    """
    if not 0 <= points < 100:
        raise ConfigError(f"{option} is from 0 to below 100 points, and this is {points:g}")
    return points / 100


RecipeFile = Annotated[
    Path | None,
    typer.Option(
        metavar="FILE",
        help="TOML file to start from; options given beside it override it.",
        rich_help_panel=_RECIPE,
    ),
]
Settings = Annotated[
    list[str] | None,
    typer.Option(
        "--set",
        metavar="KEY=VALUE",
        help="Option of the method, see selfdistill methods NAME, or any recipe key; "
        "may be repeated.",
        rich_help_panel=_RECIPE,
    ),
]
Out = Annotated[
    Path | None,
    typer.Option(
        metavar="DIRECTORY",
        help="Run directory. (the next free one in runs/)",
        rich_help_panel=_RECIPE,
    ),
]
Resume = Annotated[
    Path | None,
    typer.Option(
        metavar="RUN",
        help="Run directory to resume, by its own recipe.",
        rich_help_panel=_RECIPE,
    ),
]

TimedBatchSizes = Annotated[
    list[int] | None,
    typer.Option(
        min=1,
        help="Images of a timed forward pass; may be repeated.",
        show_default="1 and 32",
    ),
]
TimingThreads = Annotated[
    int | None, typer.Option(min=1, help="CPU threads for timing.", show_default="all")
]


def recipe_options(*, exclude: Collection[str] = ()) -> Callable[..., Callable[..., None]]:
    """A decorator that gives a command an option for each key of a recipe.

    The command takes its own parameters, and as `**keys` the recipe keys that were given; a key
    that was not given is the recipe file's or the default.

    Args:
        exclude: keys without an option.
    """
    keys = [
        _parameter(key, field)
        for key, field in Recipe.model_fields.items()
        if field.json_schema_extra and key not in exclude
    ]

    def decorate(command: Callable[..., None]) -> Callable[..., None]:
        parameters = [
            parameter
            for parameter in inspect.signature(command).parameters.values()
            if parameter.kind is not parameter.VAR_KEYWORD
        ]

        @functools.wraps(command)
        def run(**values: Any) -> None:
            given = {
                key.name: _split(values[key.name])
                for key in keys
                if values.get(key.name) not in (None, [])
            }
            command(**{p.name: values[p.name] for p in parameters if p.name in values}, **given)

        # typer reads both
        run.__signature__ = inspect.Signature([*parameters, *keys])  # type: ignore[attr-defined]
        run.__annotations__ = {p.name: p.annotation for p in (*parameters, *keys)}
        return run

    return decorate


def option_name(parameter: str) -> str:
    """The option of a command's parameter: `--peer` of `peers`, `--set` of `settings`."""
    extra: Any = Recipe.model_fields[parameter].json_schema_extra if _is_key(parameter) else None
    special = {"settings": "--set"}.get(parameter) or (extra or {}).get("flag")
    return special or f"--{parameter.replace('_', '-')}"


def _is_key(parameter: str) -> bool:
    return parameter in Recipe.model_fields


def _parameter(key: str, field: FieldInfo) -> inspect.Parameter:
    """The parameter that makes typer offer a key; unset it is None."""
    extra: Any = field.json_schema_extra
    kind = next(t for t in _alternatives(field.annotation) if t is not type(None))
    choices = typing.get_args(kind) if typing.get_origin(kind) is Literal else ()
    name = option_name(key)
    option = typer.Option(
        f"{name}/--no-{name[2:]}" if kind is bool else name,
        metavar=extra["metavar"] or "|".join(choices) or None,
        help=f"{field.description} ({default_text(field)})",
        rich_help_panel=extra["panel"],
    )
    if typing.get_origin(kind) is tuple:
        kind = list[str]
    annotation = Annotated[(str if choices else kind) | None, option]  # type: ignore[operator,valid-type]
    return inspect.Parameter(
        key, inspect.Parameter.KEYWORD_ONLY, default=None, annotation=annotation
    )


def _alternatives(annotation: Any) -> tuple[Any, ...]:
    """`int` and `None` of `int | None`."""
    union = isinstance(annotation, types.UnionType) or typing.get_origin(annotation) is typing.Union
    return typing.get_args(annotation) if union else (annotation,)


def _split(value: Any) -> Any:
    """Items of an option that was repeated, or was given several with commas."""
    if not isinstance(value, list):
        return value
    return [item.strip() for text in value for item in text.split(",")]
