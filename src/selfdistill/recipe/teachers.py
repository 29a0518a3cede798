"""Who trains with the student: a teacher that was trained before, peers that start with it."""

import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from ..core import ArtifactError, ConfigError, Method, load_tensors, nearest
from ..data import ImageData
from ..models import (
    SUFFIXES,
    build,
    count_classes,
    find_pretrained,
    load_weights,
    renormalize_inputs,
)
from ..modules.joined_methods import JoinedMethods
from ..records.training_data import TEACHER_FILE, TrainingData, read_teacher, read_training_data
from ..taps import Taps
from ..tasks import make_task
from .data_check import class_difference
from .run_weights import run_weights
from .schema import Recipe


class LoadedTeacher(NamedTuple):
    """A teacher with its weights.

    Attributes:
        network: takes images with the normalization of the student's data.
        architecture: its name.
        unlike: why its scores mean nothing for the data, a sentence, or "".
        note: what is done to its images, a phrase, or "".
    """

    network: nn.Module
    architecture: str
    unlike: str = ""
    note: str = ""


def load_teacher(recipe: Recipe, data: ImageData, *, reads_scores: bool = True) -> LoadedTeacher:
    """The teacher that a recipe names.

    Args:
        recipe: names it.
        data: the student's.
        reads_scores: whether other classes than the data's are refused at once.

    Raises:
        ConfigError: there is none of that name, its images have other channels, or its scores are
            read and its classes are not the data's.
        ArtifactError: its weights are corrupt or do not fit.
    """
    name = recipe.teacher
    if Path(name).is_dir():
        return _from_run(Path(name), data, reads_scores)
    if Path(name).suffix in SUFFIXES:
        return _from_file(recipe, data, reads_scores)
    if name.partition("/")[0] in ("timm", "torchvision"):
        pretrained = find_pretrained(name)
        unlike = _unlike_number(f"teacher '{name}'", pretrained.classes, data, reads_scores)
        note = _renormalization(f"teacher '{name}'", pretrained.mean, pretrained.std, data)
        network = pretrained.load()
        renormalize_inputs(network, (data.mean, data.std), (pretrained.mean, pretrained.std))
        return LoadedTeacher(network, name, unlike, note)
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


def _from_file(recipe: Recipe, data: ImageData, reads_scores: bool) -> LoadedTeacher:
    model, in_channels = recipe.teacher_model or recipe.model, data.train.shape[0]

    def make(num_classes: int) -> nn.Module:
        return build(model, num_classes=num_classes, in_channels=in_channels)

    count = None if reads_scores else count_classes(recipe.teacher, make)
    network = make(count or len(data.classes))
    load_weights(network, recipe.teacher)
    unlike = _unlike_number(f"teacher '{recipe.teacher}'", count or len(data.classes), data, False)
    return LoadedTeacher(network, model, unlike)


def _from_run(path: Path, data: ImageData, reads_scores: bool) -> LoadedTeacher:
    recipe, state = run_weights(path)
    own = read_training_data(path)
    unlike = _unlike_classes(f"teacher {path}", own, data)
    if unlike and reads_scores:
        raise ConfigError(unlike)
    note = _renormalization(f"teacher {path}", own.mean, own.std, data)
    network = build(recipe.model, num_classes=len(own.classes), in_channels=len(own.mean))
    try:
        load_tensors(network, state)
    except RuntimeError:
        raise ArtifactError(f"the weights of teacher {path} do not fit {recipe.model}") from None
    renormalize_inputs(network, (data.mean, data.std), (own.mean, own.std))
    return LoadedTeacher(network, recipe.model, unlike, note)


_READ_FEATURES = "a method that reads its scores needs the student's; at, crd and others do not"


def _unlike_number(who: str, count: int, data: ImageData, refuse: bool) -> str:
    if count == len(data.classes):
        return ""
    unlike = (
        f"{who} tells {count} classes apart and '{data.name}' has {len(data.classes)}; "
        f"{_READ_FEATURES}: train it on these data first, or take one of those"
    )
    if refuse:
        raise ConfigError(unlike)
    return unlike


def _unlike_classes(who: str, own: TrainingData, data: ImageData) -> str:
    difference = class_difference(own, data)
    return f"{who} {difference}; {_READ_FEATURES}" if difference else ""


def _renormalization(who: str, mean: Sequence[float], std: Sequence[float], data: ImageData) -> str:
    """The note that a teacher's images are brought to another normalization, or ""."""
    if len(mean) != len(data.mean):
        raise ConfigError(
            f"{who} learned images of {len(mean)} channels, and those of '{data.name}' have "
            f"{len(data.mean)}; train the teacher on images like the student's"
        )
    if (*mean, *std) == (*data.mean, *data.std):
        return ""
    return f"its images brought to its own normalization, mean {_shown(mean)}, std {_shown(std)}"


def _shown(numbers: Sequence[float]) -> str:
    return " ".join(f"{x:.3f}" for x in numbers)


def fingerprint(network: nn.Module) -> str:
    """SHA-256 of a network's state, to tell whether a teacher is still the same."""
    digest = hashlib.sha256()
    for name, tensor in sorted(network.state_dict().items()):
        digest.update(name.encode())
        digest.update(tensor.detach().cpu().reshape(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()
