"""Training as a function call: what `import selfdistill` offers and what the command calls."""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import nn

from ..core import ConfigError, DataError
from ..data import ImageData
from ..early_exit.network import (
    EarlyExitNetwork,
    build_early_exit_network,
    check_image_labels,
    collect_exit_decisions,
    early_exits,
    exit_costs,
)
from ..early_exit.thresholds import Threshold, as_thresholds, calibrate_thresholds
from ..engine import checkpoint
from ..engine.log import Callback
from ..engine.run_directory import RunDirectory
from ..engine.state import restore_method
from ..recipe.build_run import Companions, build_run, load_data
from ..recipe.schema import Recipe, parse, read
from ..recipe.teachers import check_given_modules, placeholder_teacher
from ..records.exit_scores import read_exit_scores
from .run import Run
from .training import load_recipe, train_recipe, unique_run_dir

__all__ = [
    "Run",
    "anytime",
    "load",
    "load_recipe",
    "merged",
    "train",
    "train_recipe",
    "unique_run_dir",
]


def train(
    *,
    model: str | nn.Module | None = None,
    data: str | ImageData | None = None,
    teacher: str | Path | nn.Module | None = None,
    peers: Sequence[str | nn.Module] = (),
    out: str | Path | None = None,
    resume: bool = False,
    recipe: str | Path | None = None,
    display: Callback | None = None,
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

    Examples:
        >>> run = train(method="muse", data="digits", epochs=20)  # doctest: +SKIP
        >>> run.exits[0].test_score, run.network  # doctest: +SKIP
    """
    if isinstance(model, nn.Module):
        keys["model"] = type(model).__name__
    elif model is not None:
        keys["model"], model = model, None
    if isinstance(data, ImageData):
        keys["data"] = data.name
    elif data is not None:
        keys["data"], data = data, None
    company = Companions()
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
    base = read(Path(recipe)) if recipe else {}
    chosen = load_recipe(out) if resume else parse(merged(base, keys))
    return train_recipe(
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
        data, model, peers: the objects that the run was made with, if they were no names.
        teacher: goes into the method, to train it further. Without one the method has a teacher of
            the same shapes that says nothing: a trained run has no use for it.

    Raises:
        ConfigError: there is no run, nothing was saved yet, or an object is missing.
        ArtifactError: its checkpoints are corrupt or of a newer version.
    """
    recipe, directory = load_recipe(path), RunDirectory(Path(path))
    found = checkpoint.newest(directory.checkpoints)
    if found is None:
        raise ConfigError(f"{path} has no checkpoint yet")
    check_given_modules(recipe, model, peers)
    data, bare = data or load_data(recipe), recipe.model_copy(update={"weights": ""})
    if teacher is None and recipe.teacher:
        teacher = placeholder_teacher(directory.path, data)
        bare = bare.model_copy(update={"teacher_taps": "auto"})
    parts = build_run(bare, data=data, model=model, company=Companions(teacher, peers))
    restore_method(parts.method, found, average=True)
    return Run(directory.path, recipe, parts.method.eval(), read_exit_scores(directory.path))


def anytime(
    run: Run,
    threshold: Threshold | Iterable[Threshold] = None,
    *,
    max_loss: float = 0.01,
    data: ImageData | None = None,
) -> EarlyExitNetwork:
    """The network of a run, with its exits, that computes each image only until one is sure of it.

    Args:
        run: of a method that leaves exits.
        threshold: the class probability from which on an image leaves, in (0, 1]: one for all
            exits, or one each, None to leave an exit out. Without any, thresholds are chosen on the
            run's validation images: those of least mean multiply-adds.
        max_loss: how much lower than the student's the accuracy on the validation images may then
            be; 0.01 is one point.
        data: the run's data, if they were no name.

    Returns:
        A module of its own on the run's device: normalized images in, logits and exits out.

    Raises:
        ConfigError: images have no class of their own, there are no exits, the network cannot be
            parted at them, or a threshold is no probability.
        DataError: thresholds are to be chosen, and there are no validation images.

    Examples:
        >>> network = anytime(run, threshold=0.9)  # doctest: +SKIP
        >>> logits, exits = network(images)  # doctest: +SKIP
    """
    check_image_labels(run.recipe.task)
    exits = list(early_exits(run.method))
    if threshold is not None:
        return build_early_exit_network(run.method, as_thresholds(threshold, exits))
    data = data or load_data(run.recipe)
    if data.val is None:
        raise DataError(
            "thresholds are chosen on validation images, and the run held none out; give a "
            "threshold"
        )
    watched = collect_exit_decisions(run.method, data, data.val, workers=run.recipe.workers)
    example = torch.zeros(1, *data.train.shape)
    return build_early_exit_network(
        run.method, calibrate_thresholds(watched, exit_costs(run.method, example), max_loss)
    )
