"""Who trains with the student: a teacher that was trained before, peers that start with it."""

import hashlib
import tomllib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ..core import ArtifactError, ConfigError, Method, load_tensors, nearest
from ..data import ImageData
from ..engine import checkpoint
from ..engine.run_directory import RunDirectory
from ..models import SUFFIXES, build, find_pretrained, load_weights
from ..modules.joined_methods import JoinedMethods
from ..records.training_data import TEACHER_FILE, TrainingData, read_teacher, read_training_data
from ..taps import Taps
from ..tasks import make_task
from .schema import Recipe, parse

_FAR = 0.05  # of a standard deviation: subsets of one data set stay far below


def describe_data(data: ImageData) -> TrainingData:
    """The record of a run's data."""
    return TrainingData(data.name, data.task, data.classes, data.mean, data.std)


def load_teacher(recipe: Recipe, data: ImageData) -> tuple[nn.Module, str]:
    """The teacher that a recipe names, with its weights, and the name of its architecture.

    Raises:
        ConfigError: there is none of that name; its classes or its normalization are not the
            data's.
        ArtifactError: its weights are corrupt or do not fit.
    """
    name = recipe.teacher
    if Path(name).is_dir():
        return _from_run(Path(name), data)
    if Path(name).suffix in SUFFIXES:
        model = recipe.teacher_model or recipe.model
        network = _empty(model, data)
        load_weights(network, name)
        return network, model
    if name.partition("/")[0] in ("timm", "torchvision"):
        pretrained = find_pretrained(name)
        if pretrained.classes != len(data.classes):
            raise ConfigError(
                f"teacher '{name}' tells {pretrained.classes} classes apart and '{data.name}' has "
                f"{len(data.classes)}; train it on these data first and give its run as --teacher"
            )
        trained_on = TrainingData("", "", data.classes, pretrained.mean, pretrained.std)
        _check(f"teacher '{name}'", trained_on, data)
        return pretrained.load(), name
    beside = Path(name).parent
    choices = [str(p) for p in beside.iterdir()] if beside.is_dir() else []
    raise ConfigError(
        f"there is no teacher '{name}'{nearest(name, choices, list_all=False)}; give the directory "
        f"of a run, a weights file ({', '.join(SUFFIXES)}), timm/NAME or, in Python, a module"
    )


def placeholder_teacher(path: Path, data: ImageData) -> nn.Module:
    """What a run remembers of its teacher, for the run to be evaluated: taps, but nothing to say.

    Raises:
        ArtifactError: the run does not remember it.
    """
    try:
        teacher = read_teacher(path)
    except ArtifactError:
        teacher = None
    if teacher is None:
        raise ArtifactError(
            f"{path / TEACHER_FILE} does not tell the shapes of the teacher's features, which the "
            "method is built by; give the teacher, in Python: teacher="
        )
    return _ZeroTeacher(teacher.taps, data)


def teacher_tap_shapes(
    method: Method, teacher: nn.Module
) -> dict[str, dict[str, tuple[int, int, int]]]:
    """{kind of default taps: {name: (C, H, W)}} of the teacher's features that a method reads."""
    parts: Any = method.parts.values() if isinstance(method, JoinedMethods) else [method]
    return {
        part.default_taps: taps.shapes
        for part in parts
        for taps in part.modules()
        if isinstance(taps, Taps) and taps.network is teacher
    }


class _ZeroTeacher(nn.Module):
    """A network whose features have the shapes that were asked for, and are zero.

    Args:
        taps: {kind of default taps: {name: (C, H, W)}}; the names are made anew.
        data: whose task gives its outputs their form; they say nothing.
    """

    def __init__(
        self, taps: Mapping[str, Mapping[str, tuple[int, int, int]]], data: ImageData
    ) -> None:
        super().__init__()
        task = make_task(data.task, data.classes, data.train.shape)
        self.head = task.head(1)
        self.features = nn.ModuleDict(
            {kind: nn.ModuleList(map(_ZeroFeature, taps[kind].values())) for kind in taps}
        )
        names = {kind: [f"features.{kind}.{i}" for i in range(len(taps[kind]))] for kind in taps}
        self.cuts, self.stage_ends = names.get("auto"), names.get("stages")

    def forward(self, x: Tensor) -> Any:
        for features in self.features.values():
            for feature in features:  # type: ignore[attr-defined]
                feature(x)
        return self.head(x.new_zeros(len(x), 1, 1, 1))


class _ZeroFeature(nn.Module):
    def __init__(self, shape: tuple[int, int, int]) -> None:
        super().__init__()
        self.shape = shape

    def forward(self, x: Tensor) -> Tensor:
        channels, height, width = self.shape
        if width == 1:  # as tokens or a vector come: a map of one column could be misread
            return x.new_zeros(len(x), height, channels)
        return x.new_zeros(len(x), channels, height, width)


def check_given_modules(
    recipe: Recipe, model: nn.Module | None = None, peers: Sequence[nn.Module] = ()
) -> None:
    """Raises `ConfigError` if a run was made with networks of a user's that are not given again."""
    needed = {"model": (recipe.model,) if model is None else (), "peers": recipe.peers}
    if peers:
        del needed["peers"]
    for what, names in needed.items():
        if own := next((name for name in names if "/" not in name), None):
            raise ConfigError(
                f"this run was made with a network that was given as a module, {own}; give one "
                f"like it again, in Python: {what}="
            )


def build_peers(recipe: Recipe, data: ImageData) -> list[nn.Module]:
    """The networks to be trained along; one like the student where none is named."""
    return [_empty(model, data) for model in recipe.peers or (recipe.model,)]


def _empty(model: str, data: ImageData) -> nn.Module:
    return build(model, num_classes=len(data.classes), in_channels=data.train.shape[0])


def _from_run(path: Path, data: ImageData) -> tuple[nn.Module, str]:
    run = RunDirectory(path)
    recipe = parse(tomllib.loads(run.recipe()), run_dir=path)
    saved = checkpoint.newest(run.checkpoints)
    if saved is None:
        raise ConfigError(f"teacher {path} has no checkpoint yet; train it to the end first")
    if not saved.state["finished"]:
        raise ConfigError(
            f"teacher {path} is not trained to the end; `selfdistill train --resume {path}` does it"
        )
    _check(f"teacher {path}", read_training_data(path), data)
    network = _empty(recipe.model, data)
    state, prefix = saved.tensors["model"], saved.state.get("student")
    if "ema" in saved.tensors and prefix is not None:  # what the run was evaluated by
        state = {name: saved.tensors["ema"][prefix + name] for name in state}
    try:
        load_tensors(network, state)
    except RuntimeError:
        raise ArtifactError(f"the weights of teacher {path} do not fit {recipe.model}") from None
    return network, recipe.model


def _check(who: str, trained_on: TrainingData, data: ImageData) -> None:
    if trained_on.task not in ("", data.task):
        raise ConfigError(
            f"{who} was trained for {trained_on.task} and the student is for {data.task}; "
            "a teacher must know the student's task"
        )
    if len(trained_on.classes) != len(data.classes):
        raise ConfigError(
            f"{who} tells {len(trained_on.classes)} classes apart and '{data.name}' has "
            f"{len(data.classes)}; a teacher must know the student's classes"
        )
    pairs = zip(trained_on.classes, data.classes, strict=True)
    if different := next(((a, b) for a, b in pairs if a != b), None):
        raise ConfigError(
            f"{who} has '{different[0]}' where '{data.name}' has '{different[1]}': both must have "
            "the same classes in the same order"
        )
    apart = [
        max(abs(m - n) / s, abs(t / s - 1))
        for m, n, s, t in zip(trained_on.mean, data.mean, data.std, trained_on.std, strict=False)
    ]
    if len(trained_on.mean) != len(data.mean) or max(apart) > _FAR:
        raise ConfigError(
            f"{who} learned images of mean {_shown(trained_on.mean)} and deviation "
            f"{_shown(trained_on.std)}, and '{data.name}' is brought to {_shown(data.mean)} and "
            f"{_shown(data.std)}; train the teacher on the student's data"
        )


def _shown(numbers: tuple[float, ...]) -> str:
    return "(" + ", ".join(f"{x:.3f}" for x in numbers) + ")"


def fingerprint(network: nn.Module) -> str:
    """SHA-256 of a network's state, to tell whether a teacher is still the same."""
    digest = hashlib.sha256()
    for name, tensor in sorted(network.state_dict().items()):
        digest.update(name.encode())
        digest.update(tensor.detach().cpu().reshape(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()
