"""`selfdistill doctor`: diagnosis of a run before it starts."""

import itertools
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from typer.core import TyperCommand

from .options import Out, RecipeFile, Settings, recipe_options
from .resolve_recipe import is_method_named, resolve_recipe

if TYPE_CHECKING:
    from ..comparison.prediction import ShortRuns
    from ..recipe.schema import Recipe

_PREDICTION = "--will-it-help"
WillItHelp = Annotated[
    list[str] | None,
    typer.Option(
        metavar="ROWS|auto",
        help="Predict from short runs whether these methods help, with commas between: METHOD or "
        "METHOD:key=value,…; auto, or nothing, is the recipe's method.",
        rich_help_panel="Prediction",
    ),
]


class DoctorCommand(TyperCommand):
    """The command, whose --will-it-help without a value asks of the recipe's method."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """As usual, with auto behind a --will-it-help that an option or nothing follows."""
        given: list[str] = []
        for word, following in itertools.zip_longest(args, args[1:], fillvalue="-"):
            bare = word == _PREDICTION and following.startswith("-")
            given += [word, "auto"] if bare else [word]
        return super().parse_args(ctx, given)


@recipe_options()
def doctor(
    *,
    recipe: RecipeFile = None,
    settings: Settings = None,
    out: Out = None,
    will_it_help: WillItHelp = None,
    **keys: Any,
) -> None:
    """Examine a run before it starts: data, network, teacher, loss terms, time and memory.

    Takes the options of selfdistill train, trains for a few steps and throws them away. Nothing is
    written. It exits as the training would if that could not start, and with 0 otherwise.
    """
    from ..diagnosis import diagnose
    from ..engine.quiet_lightning import quiet_lightning
    from .doctor_output import DiagnosisScreen, show_conclusion

    rows = [text for text in will_it_help or [] if text != "auto"]
    examined = dict(keys)
    if rows and not is_method_named(keys, recipe, settings):
        examined["method"] = _first_method(rows)
    resolved = resolve_recipe(examined, recipe, settings)
    runs = None
    if will_it_help:
        runs = _short_runs(rows or [resolved.method], resolved, keys, recipe, settings)
    with quiet_lightning():
        report = diagnose(resolved, out=out, callback=DiagnosisScreen())
    show_conclusion(report)
    if runs:
        from .prediction_output import show_forecast

        show_forecast(runs, has_validation="val" in report.data.sizes)


def _first_method(rows: list[str]) -> str:
    """Method of the first row; what is not yet known to be one is refused where it is read."""
    return rows[0].partition(",")[0].partition(":")[0].rpartition("=")[2].strip()


def _short_runs(
    rows: list[str],
    resolved: "Recipe",
    keys: dict[str, Any],
    recipe: Path | None,
    settings: list[str] | None,
) -> "ShortRuns":
    """The short runs of these rows, checked."""
    from ..comparison.prediction import plan_short_runs
    from .compare import comparison_arguments

    given = {key: value for key, value in keys.items() if key not in ("method", "seed")}
    given |= {"settings": settings or []} | ({"recipe": recipe} if recipe else {})
    return plan_short_runs(rows, seed=resolved.seed, **comparison_arguments(given))
