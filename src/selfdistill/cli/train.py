"""`selfdistill train`."""

from typing import Any

from .options import Out, RecipeFile, Resume, Settings, recipe_options
from .resolve_recipe import is_method_named, recipe_for_resume, resolve_recipe
from .run_output import train_and_report


@recipe_options()
def train(
    *,
    recipe: RecipeFile = None,
    settings: Settings = None,
    out: Out = None,
    resume: Resume = None,
    **keys: Any,
) -> None:
    """Train a network: with no options FRSKD on handwritten digits."""
    if resume:
        others = {"recipe": recipe, "settings": settings, "out": out, **keys}
        epochs = others.pop("epochs", None)
        train_and_report(recipe_for_resume(resume, others), resume, resume=True, epochs=epochs)
        return
    chosen = resolve_recipe(keys, recipe, settings)
    from ..recipe.default_method import PAGE, default_method
    from ..runs.paths import unique_run_dir
    from ..runs.terminal import rank_zero
    from .console import echo

    if rank_zero() and not is_method_named(keys, recipe, settings):
        name, reason = default_method(chosen.model_dump())
        echo(f"No method is named, so it is {name}: {reason}. All that is measured: {PAGE}", "dim")
    train_and_report(chosen, out or unique_run_dir(chosen), resume=False)
