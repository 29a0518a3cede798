"""`selfdistill train`."""

from typing import Any

from .console import rank_zero
from .options import Out, RecipeFile, Resume, Settings, recipe_options
from .resolve_recipe import recipe_for_resume, resolve_recipe
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
    """Train a network: with no options MUSE on handwritten digits."""
    if resume:
        others = {"recipe": recipe, "settings": settings, "out": out, **keys}
        train_and_report(recipe_for_resume(resume, others), resume, resume=True)
        return
    chosen = resolve_recipe(keys, recipe, settings)
    from ..engine.run_directory import RunDirectory
    from ..runs.paths import unique_run_dir

    run_dir = out or unique_run_dir(chosen)
    if rank_zero():
        RunDirectory(run_dir).check_free()  # before the data are loaded
    train_and_report(chosen, run_dir, resume=False)
