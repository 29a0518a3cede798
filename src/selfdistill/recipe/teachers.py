"""Who trains with the student: a teacher that was trained before, peers that start with it."""

import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from ..core import ArtifactError, ConfigError, Method, check_kind, load_tensors
from ..core.fake_quantization import add_fake_quantization
from ..data import ImageData
from ..engine import checkpoint
from ..engine.run_directory import RunDirectory
from ..engine.state import restore_method
from ..models import (
    SUFFIXES,
    TrainedInput,
    build,
    count_classes,
    file_input,
    find_pretrained,
    read_weights,
    set_weights,
)
from ..modules.joined_methods import JoinedMethods
from ..records.training_data import TrainingData, read_training_data
from ..taps import Taps
from ..tasks import make_task
from .build_method import build_method, lacking_parts, teacher_network
from .data_check import class_difference
from .document import PUBLISHED, unknown_teacher
from .network_input import named_channels
from .options import method_classes
from .placeholder_teacher import placeholder_teacher
from .quantization import quantize_method
from .run_weights import run_weights
from .schema import Recipe
from .teacher_input import adapt_teacher_inputs, check_teacher_channels, data_normalization


class LoadedTeacher(NamedTuple):
    """A teacher with its weights.

    Attributes:
        network: takes images with the normalization of the student's data; where a method asks for
            what another trained, that method with its network.
        architecture: its name.
        unlike: why its scores mean nothing for the data, a sentence, or "".
        note: what is done to its images, a phrase, or "".
        size: height and width of the images that it was trained on; () where nobody knows, or
            where its images are resized.
        license: of published weights, where it asks for more than to be named; else "".
    """

    network: nn.Module
    architecture: str
    unlike: str = ""
    note: str = ""
    size: tuple[int, ...] = ()
    license: str = ""


def load_teacher(
    recipe: Recipe, data: ImageData, *, reads_scores: bool = True, method: str = ""
) -> LoadedTeacher:
    """The teacher that a recipe names.

    Args:
        recipe: names it.
        data: the student's.
        reads_scores: whether other classes than the data's are refused at once.
        method: what must have trained it, whose parts are read, or "".

    Raises:
        ConfigError: there is none of that name, its images have other channels, its scores are
            read and its classes are not the data's, or another method trained it.
        ArtifactError: its weights are corrupt or do not fit.
    """
    name = recipe.teacher
    if Path(name).is_dir():
        return _from_run(Path(name), data, reads_scores, method, recipe.teacher_image_size)
    if method:
        model, weights = (recipe.teacher_model or recipe.model), name
        if name.partition("/")[0] in PUBLISHED:
            model, weights = name, "pretrained"
        arguments = f"--data {recipe.data} --model {model} --weights {weights}"
        raise lacking_parts(name, method, arguments)
    if Path(name).suffix in SUFFIXES:
        return _from_file(recipe, data, reads_scores)
    if name.partition("/")[0] in PUBLISHED:
        pretrained = find_pretrained(name, recipe.teacher_image_size)
        unlike = _unlike_number(f"teacher '{name}'", pretrained.classes, data, reads_scores)
        check_teacher_channels(f"teacher '{name}'", len(pretrained.input.mean), data)
        network = pretrained.load()
        note, size = adapt_teacher_inputs(
            network, pretrained.input, data, recipe.teacher_image_size
        )
        return LoadedTeacher(network, name, unlike, note, size, pretrained.license)
    raise unknown_teacher(name)


def teacher_tap_shapes(method: Method, teacher: nn.Module) -> dict[str, dict[str, tuple[int, ...]]]:
    """{kind of default taps: {name: shape}} of the teacher's features that a method reads."""
    parts: Any = method.parts.values() if isinstance(method, JoinedMethods) else [method]
    return {
        part.default_taps: taps.shapes
        for part in parts
        for taps in part.modules()
        if isinstance(taps, Taps) and taps.network is teacher
    }


def check_given_modules(
    recipe: Recipe,
    model: nn.Module | None = None,
    peers: Sequence[nn.Module] = (),
    teacher: nn.Module | None = None,
    data: ImageData | None = None,
) -> None:
    """Raises `ConfigError` if a run was made with networks of a user's that are not given again.

    Names are the recipe's: what is given with them are objects.
    """
    check_kind("peers", peers, list | tuple, "a list of modules")
    for name, given in [("model", model), ("teacher", teacher), *(("peer", p) for p in peers)]:
        check_kind(f"a {name}", given, nn.Module | None, "a torch.nn.Module here, no name")
    check_kind("data", data, ImageData | None, "an ImageData here, no name")
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
    model, path, classes = recipe.teacher_model or recipe.model, recipe.teacher, len(data.classes)
    state, own = read_weights(path), file_input(path)
    channels = len(own.mean) if own else named_channels(model, state, classes) or len(data.mean)
    who = f"teacher '{path}'"
    check_teacher_channels(who, channels, data)

    def make(num_classes: int) -> nn.Module:
        return build(model, num_classes=num_classes, in_channels=channels)

    count = (None if reads_scores else count_classes(state, make)) or classes
    network = make(count)
    set_weights(network, state, f"weights '{path}'")
    unlike = _unlike_number(who, count, data, False)
    known = own or TrainedInput(*data_normalization(data, channels))
    note, size = adapt_teacher_inputs(network, known, data, recipe.teacher_image_size)
    return LoadedTeacher(network, model, unlike, note, size)


def _from_run(
    path: Path, data: ImageData, reads_scores: bool, method: str, size: int | None
) -> LoadedTeacher:
    recipe, state = run_weights(path)
    if method and recipe.method != method:
        arguments = f"--data {recipe.data} --model {recipe.model} --weights {path}"
        raise lacking_parts(path, method, arguments)
    own = read_training_data(path)
    unlike = _unlike_classes(f"teacher {path}", own, data)
    if unlike and reads_scores:
        raise ConfigError(unlike)
    check_teacher_channels(f"teacher {path}", len(own.mean), data)
    network = build(recipe.model, num_classes=len(own.classes), in_channels=len(own.mean))
    given = network
    if method or any(cls.composite for cls in method_classes(recipe.method).values()):
        given = _trained_method(network, recipe, own, path)
        network = teacher_network(given)
    else:
        if recipe.quantize == "aware":  # it teaches as it was trained
            add_fake_quantization(network)
        _load(network, state, f"the weights of teacher {path} do not fit {recipe.model}")
    trained = TrainedInput(own.mean, own.std, tuple(own.shape[1:]))
    note, shown = adapt_teacher_inputs(network, trained, data, size)
    return LoadedTeacher(given if method else network, recipe.model, unlike, note, shown)


def _load(network: nn.Module, state: Mapping[str, Tensor], message: str) -> None:
    try:
        load_tensors(network, state)
    except RuntimeError:
        raise ArtifactError(message) from None


def _trained_method(network: nn.Module, recipe: Recipe, own: TrainingData, path: Path) -> Method:
    """The method of a run around its network, with all that it trained."""
    task = make_task(recipe.task, own.classes, own.shape)
    teacher = placeholder_teacher(path, task) if recipe.teacher else None
    method = build_method(
        recipe.method, network, task, recipe.taps, recipe.options, teacher=teacher
    )
    if recipe.quantize == "aware":
        quantize_method(method, recipe.method, task.example)
    saved = checkpoint.newest(RunDirectory(path).checkpoints)
    assert saved is not None  # since its weights were read
    restore_method(method, saved, ema=True)
    return method.eval()


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


def fingerprint(network: nn.Module) -> str:
    """SHA-256 of a network's state, to tell whether a teacher is still the same."""
    digest = hashlib.sha256()
    for name, tensor in sorted(network.state_dict().items()):
        digest.update(name.encode())
        digest.update(tensor.detach().cpu().reshape(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()
