"""`selfdistill doctor`: diagnosis of a run before it starts."""

from typing import Any

from .options import Out, RecipeFile, Settings, recipe_options
from .resolve_recipe import resolve_recipe


@recipe_options()
def doctor(
    *, recipe: RecipeFile = None, settings: Settings = None, out: Out = None, **keys: Any
) -> None:
    """Examine a run before it starts: data, network, teacher, loss terms, time and memory.

    Takes the options of selfdistill train, trains for a few steps and throws them away. Nothing is
    written. It exits as the training would if that could not start, and with 0 otherwise.
    """
    from ..diagnosis import diagnose
    from ..engine.quiet_lightning import quiet_lightning
    from .doctor_output import DiagnosisScreen, show_conclusion

    with quiet_lightning():
        report = diagnose(
            resolve_recipe(keys, recipe, settings), out=out, callback=DiagnosisScreen()
        )
    show_conclusion(report)
