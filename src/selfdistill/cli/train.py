"""`selfdistill train`."""

from typing import Any

from .options import Out, RecipeFile, Resume, Settings, recipe_options
from .resolve_recipe import recipe_for_resume, resolve_recipe
from .run_output import train_and_report

_DEFAULT_METHOD = (
    "No method is named, so it is MUSE: one run leaves networks of several sizes, its exits. What "
    "methods gain and cost: https://github.com/selfdistill/selfdistill/blob/main/docs/guide/choose.md"
)


@recipe_options()
def train(
    *,
    recipe: RecipeFile = None,
    settings: Settings = None,
    out: Out = None,
    resume: Resume = None,
    **keys: Any,
) -> None:
    """Train a network: with no options MUSE on handwritten digits."""
    if resume:
        others = {"recipe": recipe, "settings": settings, "out": out, **keys}
        epochs = others.pop("epochs", None)
        train_and_report(recipe_for_resume(resume, others), resume, resume=True, epochs=epochs)
        return
    chosen = resolve_recipe(keys, recipe, settings)
    from ..runs.paths import unique_run_dir
    from ..runs.terminal import rank_zero
    from .console import echo

    if "method" not in chosen.model_fields_set and rank_zero():
        echo(_DEFAULT_METHOD, "dim")
    train_and_report(chosen, out or unique_run_dir(chosen), resume=False)
