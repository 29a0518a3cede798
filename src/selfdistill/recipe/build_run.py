"""From a recipe to all that trains: the only place that sees models, data and methods together."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import torch
from torch import nn

from ..core import ConfigError, DataError, Method, Task, UnknownDataError
from ..core.keyed_random import bits, purpose
from ..data import ImageData, load, read_extra_images
from ..engine.fine_tuning import FineTuning
from ..models import build as build_network
from ..models import set_weights
from ..models.fit_weights import fit_weights
from ..tasks import TASKS, check_network, make_task
from .build_method import build_method, teacher_network, unlike_outputs
from .embedding import with_embedding
from .fine_tuning import tune_network
from .machine_choices import chosen_by_machine
from .network_input import InitialWeights, as_network_input, initial_weights
from .options import method_classes
from .quantization import quantize_method
from .schema import Recipe
from .teacher_input import convert_given_teacher
from .teachers import LoadedTeacher, build_peers, load_teacher

_WEIGHTS = purpose("weights")


class RunComponents(NamedTuple):
    """What a run is made of; the recipe is complete, with the teacher's network named.

    Attributes:
        tuning: what of the network learns how fast.
        teacher: a network, or the method that trained it where its parts are read.
        teacher_unlike: why the teacher's scores mean nothing for the data, a sentence, or "".
        teacher_note: what is done to the images that it gets, a phrase, or "".
        teacher_size: height and width of those that it was trained on; () where nobody knows, or
            where its images are resized.
        teacher_license: of its published weights, where it asks for more than to be named; else "".
    """

    recipe: Recipe
    data: ImageData
    task: Task
    network: nn.Module
    method: Method
    tuning: FineTuning
    teacher: nn.Module | None
    peers: Sequence[nn.Module]
    teacher_unlike: str = ""
    teacher_note: str = ""
    teacher_size: tuple[int, ...] = ()
    teacher_license: str = ""


_READING_KEYS = (
    *("task", "val_fraction", "image_size", "max_train_images"),
    *("ignore_index", "empty_images", "invalid_boxes"),
    *("clip_frames", "clip_stride", "short_videos"),
)
"""Keys of a recipe that say how a data set is read."""


def load_data(recipe: Recipe, size: tuple[int, int] | None = None) -> ImageData:
    """The data set, with the recipe's own augmentation where it says so.

    Args:
        recipe: says which, and how they are read.
        size: height and width of the images; None is what the recipe says.
    """
    keys = {key: getattr(recipe, key) for key in _READING_KEYS}
    keys |= {"image_size": size} if size else {}
    data = load(recipe.data, root=Path(recipe.data_root), **keys)
    crop = data.crop_padding if recipe.crop_padding is None else recipe.crop_padding
    flip = data.flip if recipe.flip is None else recipe.flip
    zoom = data.max_zoom if recipe.max_zoom is None else recipe.max_zoom
    color = recipe.color_jitter
    return replace(data, crop_padding=crop, flip=flip, max_zoom=zoom, color_jitter=color)


def load_run_data(recipe: Recipe) -> ImageData:
    """The data of a run that is there, by its recipe.

    Raises:
        DataError: they cannot be read, or were an object that has no name elsewhere.
    """
    try:
        return load_data(recipe)
    except UnknownDataError as error:
        raise DataError(
            f"{error}; a run of an ImageData of that name is loaded, evaluated and resumed in "
            "Python, where data= gives it again"
        ) from error


def data_key(recipe: Recipe) -> tuple[object, ...]:
    """What decides which images a recipe reads, and how; equal for recipes that share them."""
    return recipe.data, recipe.data_root, *(getattr(recipe, key) for key in _READING_KEYS)


def with_extra(recipe: Recipe, data: ImageData) -> ImageData:
    """Data with the extra images that the recipe names, which training alone reads."""
    if not recipe.extra:
        return data
    return replace(data, extra=read_extra_images(recipe.extra, recipe.data_root))


class RunInput(NamedTuple):
    """What a network begins with: data as it is shown them, and weights, None for random ones."""

    data: ImageData
    weights: InitialWeights | None = None


def run_input(
    recipe: Recipe, *, data: ImageData | None = None, model: nn.Module | None = None
) -> RunInput:
    """The data of a recipe, or those given, for its network or the one given, and its weights."""
    weights = initial_weights(recipe)  # before the data, which may take long
    data = with_extra(recipe, data or load_data(recipe))
    return RunInput(as_network_input(recipe, data, model=model, weights=weights), weights)


def build_run(
    recipe: Recipe,
    given: RunInput | None = None,
    *,
    model: nn.Module | None = None,
    teacher: nn.Module | None = None,
    peers: Sequence[nn.Module] = (),
) -> RunComponents:
    """Build data, task, networks and method; the weights depend on the recipe's seed alone.

    Args:
        recipe: what to build.
        given: the data and the initial weights; None reads those of the recipe.
        model, teacher, peers: instead of the recipe's.
    """
    given_peers = peers
    data, weights = given or run_input(recipe, model=model)
    loaded: LoadedTeacher | None = None
    if TASKS[data.task].embeddings:  # which are as wide as the teacher's, so it comes first
        loaded = _teacher(recipe, data, teacher)
        data = with_embedding(data, loaded, recipe.teacher_taps)
    torch.manual_seed(int(bits(_WEIGHTS, recipe.seed)))
    task = make_task(
        data.task, data.classes, data.train.shape, label_smoothing=recipe.label_smoothing
    )
    network = _new_network(recipe, data, weights) if model is None else model
    if weights and weights.tensors:
        set_weights(network, weights.tensors, f"weights '{recipe.weights}'")
    if not peers and "online" in {cls.kind for cls in method_classes(recipe.method).values()}:
        peers = build_peers(recipe, data)
    loaded = loaded or _teacher(recipe, data, teacher)
    if loaded and loaded.architecture:
        recipe = recipe.model_copy(update={"teacher_model": loaded.architecture})
    unlike = loaded.unlike if loaded else ""
    if loaded and teacher is not None:
        unlike = unlike_outputs(teacher_network(teacher), task)
    teacher = loaded.network if loaded else None
    for each in (network, *peers):
        check_network(each, task, foreign=each is model or each in given_peers)
    method = build_method(
        recipe.method,
        network,
        task,
        recipe.taps,
        recipe.options,
        teacher=teacher,
        teacher_taps=recipe.teacher_taps,
        teacher_unlike=unlike,
        peers=peers,
        train_labels=data.train.labels,
    )
    if recipe.quantize == "aware":
        quantize_method(method, recipe.method, task.example)
    if method.needs.trained_student and model is None:
        _check_trained(recipe, network, weights)
    _check_schedule(recipe, method)
    tuning = tune_network(recipe, network, method, task, given=model is not None)
    if recipe.freeze_until and model is None:
        _check_frozen(recipe, network, weights)
    recipe = chosen_by_machine(recipe, network, method, task.example)
    parts = recipe, data, task, network, method, tuning, teacher, peers, unlike
    return RunComponents(*parts, *(loaded[3:] if loaded else ()))


def _new_network(recipe: Recipe, data: ImageData, weights: InitialWeights | None) -> nn.Module:
    return build_network(
        recipe.model,
        num_classes=len(data.classes),
        in_channels=data.train.shape[0],
        weights="pretrained" if weights and not weights.tensors else "",
    )


def _teacher(recipe: Recipe, data: ImageData, given: nn.Module | None) -> LoadedTeacher | None:
    """The teacher that the recipe names, or the module that is given; None if there is none."""
    if given is not None:
        note = convert_given_teacher(given, data, recipe.teacher_image_size)
        return LoadedTeacher(given, "", note=note)
    classes = method_classes(recipe.method).values()
    if not recipe.teacher or "offline" not in {cls.kind for cls in classes}:
        return None
    reads_scores = any(cls.needs.teacher_scores for cls in classes)
    parts_of = next((cls.teacher_method for cls in classes if cls.teacher_method), "")
    return load_teacher(recipe, data, reads_scores=reads_scores, method=parts_of)


def _check_schedule(recipe: Recipe, method: Method) -> None:
    """Raises `ConfigError` if the learning rate does not restart where the method does."""
    if method.cycles > 1 and recipe.lr_schedule == "step":
        raise ConfigError(
            f"method '{recipe.method}' trains in {method.cycles} cycles, at whose starts the "
            "learning rate restarts, and the step schedule does not; use lr_schedule=cosine"
        )


def _check_trained(recipe: Recipe, network: nn.Module, weights: InitialWeights | None) -> None:
    """Raises `ConfigError` if a network that does not learn has not all of its weights from a file.

    A run that goes on has them from its checkpoint.
    """
    keeps = f"method '{recipe.method}' trains heads on a network that stays as it is"
    if not recipe.weights:
        raise ConfigError(f"{keeps}; give --weights with a run or a file")
    if lacking := _new_parameters(network, weights):
        raise ConfigError(
            f"{keeps}, and weights '{recipe.weights}' lack {[*lacking][-1]} for these classes; "
            "train the network on these data first, and give that run as --weights"
        )


def _check_frozen(recipe: Recipe, network: nn.Module, weights: InitialWeights | None) -> None:
    """Raises `ConfigError` if something is frozen that the weights lack, such as a new head."""
    if weights is None or not weights.tensors:
        return
    lacking = _new_parameters(network, weights)
    if frozen := [name for name, p in lacking.items() if not p.requires_grad]:
        raise ConfigError(
            f"--freeze-until {recipe.freeze_until} would keep {frozen[-1]}, which weights "
            f"'{recipe.weights}' lack, as it is, at random; name a module before it"
        )


def _new_parameters(network: nn.Module, weights: InitialWeights | None) -> dict[str, nn.Parameter]:
    """The parameters that initial weights lack; none of a run that goes on."""
    if weights is None:
        return {}
    tensors = fit_weights(weights.tensors, network, "").tensors if weights.tensors else {}
    return {name: p for name, p in network.named_parameters() if name not in tensors}
