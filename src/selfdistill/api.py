"""Training as a function call: what `import selfdistill` offers and what the command calls."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from torch import nn

from .core import ConfigError
from .data import ImageData
from .engine import checkpoint
from .engine.log import Display
from .engine.run_directory import RunDirectory
from .engine.state import restore_method
from .export.exits import from_csv
from .recipe.build import (
    Company,
    assemble,
)
from .recipe.schema import Recipe, parse, read
from .running import Run, next_free, recipe_of, run_recipe

__all__ = ["Run", "load", "merged", "next_free", "recipe_of", "run_recipe", "train"]


def train(
    *,
    model: str | nn.Module | None = None,
    data: str | ImageData | None = None,
    teacher: str | Path | nn.Module | None = None,
    peers: Sequence[str | nn.Module] = (),
    out: str | Path | None = None,
    resume: bool = False,
    recipe: str | Path | None = None,
    display: Display | None = None,
    **keys: Any,
) -> Run:
    """Train a network.

    Args:
        model: a name (`selfdistill models`) or any module, which is trained in place; None is the
            recipe's.
        data: a name, ``folder:PATH``, ``npz:PATH`` or an `ImageData`; None is the recipe's.
        teacher: for offline methods: a run's directory, a weights file, ``timm/NAME`` or a module.
        peers: for online methods: names or modules, all of them one or the other; none is one more
            network like the student.
        out: the run's directory; None takes the next free one in runs/.
        resume: go on with the run in `out`, by its own recipe; of the rest only what was given as
            an object (`model`, `data`, `teacher`, `peers`) need be given again.
        recipe: a TOML file to start from.
        display: who is shown the progress; None is nobody.
        keys: any key of a recipe, and the method's own options by their names.

    Returns:
        The run, judged on validation and test images.

    Example:
        >>> run = train(method="muse", data="digits", epochs=20)  # doctest: +SKIP
        >>> run.exits[0].test_accuracy, run.network  # doctest: +SKIP
    """
    if isinstance(model, nn.Module):
        keys["model"] = type(model).__name__
    elif model is not None:
        keys["model"], model = model, None
    if isinstance(data, ImageData):
        keys["data"] = data.name
    elif data is not None:
        keys["data"], data = data, None
    company = Company()
    if isinstance(teacher, nn.Module):
        company = company._replace(teacher=teacher)
        keys["teacher"] = type(teacher).__name__
    elif teacher is not None:
        keys["teacher"] = str(teacher)
    modules = [peer for peer in peers if isinstance(peer, nn.Module)]
    if modules and len(modules) < len(peers):
        raise ConfigError("peers are names or modules, not some of each")
    company = company._replace(peers=modules)
    if peers:
        keys["peers"] = [type(p).__name__ if modules else p for p in peers]
    chosen = parse(merged(read(Path(recipe)) if recipe else {}, keys))
    return run_recipe(
        chosen, out=out, resume=resume, display=display, data=data, model=model, company=company
    )


def merged(base: Mapping[str, Any], keys: Mapping[str, Any]) -> dict[str, Any]:
    """A recipe's dictionary with keys put over it; what is no key of a recipe is the method's."""
    options = base.get("options", {})
    if not isinstance(options, Mapping):
        raise ConfigError(f"[options] of a recipe is a table, not {options!r}")
    result = {**base, "options": dict(options)}
    for key, value in keys.items():
        if key == "options":
            result["options"] |= value
        elif key in Recipe.model_fields:
            result[key] = value
        else:
            result["options"][key] = value
    return result


def load(
    path: str | Path,
    *,
    data: ImageData | None = None,
    model: nn.Module | None = None,
    teacher: nn.Module | None = None,
    peers: Sequence[nn.Module] = (),
) -> Run:
    """A run from its directory, with the weights of its newest checkpoint.

    Args:
        path: the run's directory.
        data, model, teacher, peers: the objects that the run was made with, if they were no names.
            A teacher that was one is built without its weights: a trained run has no use for them.

    Raises:
        ConfigError: there is no run, or nothing was saved yet.
        ArtefactError: its checkpoints are corrupt or of a newer version.
    """
    recipe, directory = recipe_of(path), RunDirectory(Path(path))
    found = checkpoint.newest(directory.checkpoints)
    if found is None:
        raise ConfigError(f"{path} has no checkpoint yet")
    bare = recipe.model_copy(update={"weights": ""})
    company = Company(teacher, peers)
    parts = assemble(bare, data=data, model=model, company=company, taught=False)
    restore_method(parts.method, found, average=True)
    table = directory.path / "exits.csv"
    rows = from_csv(table.read_text(encoding="utf-8")) if table.exists() else []
    return Run(directory.path, recipe, parts.method.eval(), rows)
