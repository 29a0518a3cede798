"""From a recipe to all that trains: the only place that sees models, data and methods together."""

import inspect
import typing
from collections.abc import Sequence
from dataclasses import fields, replace
from pathlib import Path
from typing import Any, NamedTuple

import torch
from lightning_fabric import Fabric
from lightning_fabric.strategies.ddp import DDPStrategy
from torch import Tensor, nn

from .. import methods as _all_methods  # noqa: F401  importing them is what registers them
from ..core import METHODS, ConfigError, DataError, Method, ResourceError, Task
from ..core.keyed_random import bits, purpose
from ..data import EvalLoader, ImageData, Loader, load
from ..engine.settings import Settings
from ..models import build as build_network
from ..taps import Taps, probing
from ..tasks import Classification
from .schema import Recipe

_WEIGHTS = purpose("weights")


class Parts(NamedTuple):
    """What a run is made of."""

    data: ImageData
    task: Classification
    network: nn.Module
    method: Method


def load_data(recipe: Recipe) -> ImageData:
    """The data set, with the recipe's own augmentation where it says so."""
    data = load(
        recipe.data,
        root=Path(recipe.data_root),
        val=recipe.val,
        image_size=recipe.image_size,
        limit=recipe.limit,
    )
    crop = data.crop if recipe.crop is None else recipe.crop
    flip = data.flip if recipe.flip is None else recipe.flip
    return replace(data, crop=crop, flip=flip)


def assemble(
    recipe: Recipe, *, data: ImageData | None = None, model: nn.Module | None = None
) -> Parts:
    """Build data, task, network and method; the weights depend on the recipe's seed alone.

    Args:
        recipe: what to build.
        data: instead of the recipe's.
        model: instead of the recipe's.
    """
    data = data or load_data(recipe)
    torch.manual_seed(int(bits(_WEIGHTS, recipe.seed)))
    example = torch.zeros(2, *data.train.shape)
    task = Classification(data.classes, example, label_smoothing=recipe.label_smoothing)
    network = (
        model
        if model is not None
        else build_network(
            recipe.model,
            num_classes=len(data.classes),
            in_channels=data.train.shape[0],
            weights=recipe.weights,
        )
    )
    probe(network, example)
    task.check(network)
    method = make_method(recipe.method, network, task, recipe.taps, recipe.options)
    return Parts(data, task, network, method)


def probe(network: nn.Module, example: Tensor) -> None:
    """Run the network once, so that an input it cannot take is told in a sentence.

    Raises:
        ConfigError: wrong channel count, or images smaller than the network allows.
    """
    channels, height, width = example.shape[1:]
    first = next((m for m in network.modules() if isinstance(m, nn.Conv2d)), None)
    if first is not None and first.in_channels != channels:
        raise ConfigError(
            f"{type(network).__name__} takes {first.in_channels} channels and the images have "
            f"{channels}; build it for {channels}, or convert the images"
        )
    try:
        with probing(network):
            network(example)
    except (RuntimeError, ValueError, AssertionError, IndexError) as error:
        reason = str(error).splitlines()[0]
        raise ConfigError(
            f"{type(network).__name__} cannot take images of {height}×{width}; "
            f"try --image-size 32, 64 or 224 ({reason})"
        ) from error


def make_method(
    name: str,
    network: nn.Module,
    task: Task,
    taps: Any = "auto",
    chosen: dict[str, Any] | None = None,
    *,
    teacher: nn.Module | None = None,
    teacher_taps: Any = "auto",
    peers: Sequence[nn.Module] = (),
    train_labels: Tensor | None = None,
) -> Method:
    """A method around a network: its constructor says by its annotations what it is to be given.

    Args:
        name: of the method.
        network: the student.
        task: what the labels mean.
        taps, teacher_taps: where to read features, see `find_taps`; peers like the student where
            they have those modules, else where their own stages end.
        chosen: the method's options.
        teacher: for methods that learn from one.
        peers: for methods that train several networks.
        train_labels: of all training images, (N,), for methods that keep something for each.

    Raises:
        ConfigError: the method lacks something, or has no use for what it is given.
    """
    cls = METHODS[name]
    _check_company(name, cls, task, teacher, peers, train_labels)
    hints = typing.get_type_hints(cls.__init__)

    def as_wanted(wanted: Any, net: nn.Module, names: Any) -> nn.Module:
        return Taps(net, names, example=_like(task.example, net)) if wanted is Taps else net

    given: dict[str, Any] = {}
    for parameter in inspect.signature(cls).parameters.values():
        wanted = hints[parameter.name]
        if parameter.name == "student":
            given["student"] = as_wanted(wanted, network, taps)
        elif parameter.name == "teacher" and teacher is not None:
            given["teacher"] = as_wanted(wanted, teacher, teacher_taps)
        elif parameter.name == "peers":
            each = typing.get_args(wanted)[0]
            given["peers"] = [as_wanted(each, p, _taps_of_peer(p, taps)) for p in peers]
        elif parameter.name == "task":
            given["task"] = task
        elif parameter.name == "train_labels":
            given["train_labels"] = train_labels
    return cls(**given, **(chosen or {}))


def _taps_of_peer(peer: nn.Module, taps: Any) -> Any:
    names = taps.split(",") if isinstance(taps, str) else taps
    there = dict(peer.named_modules())
    return taps if all(name.strip() in there for name in names) else "auto"


def _check_company(
    name: str,
    cls: type[Method],
    task: Task,
    teacher: nn.Module | None,
    peers: Sequence[nn.Module],
    train_labels: Tensor | None,
) -> None:
    def others(kind: str) -> str:
        return ", ".join(n for n in METHODS if METHODS[n].kind == kind)

    takes = inspect.signature(cls).parameters
    if "teacher" in takes and teacher is None:
        raise ConfigError(
            f"method '{name}' learns from a teacher: give --teacher RUN, WEIGHTS or timm/NAME"
        )
    if "teacher" not in takes and teacher is not None:
        raise ConfigError(f"method '{name}' has no teacher; these have: {others('offline')}")
    if "peers" in takes and not peers:
        raise ConfigError(f"method '{name}' trains several networks: give --peer MODEL")
    if "peers" not in takes and peers:
        raise ConfigError(f"method '{name}' has no peers; these have: {others('online')}")
    if "train_labels" in takes and train_labels is None:
        raise ConfigError(f"method '{name}' wants train_labels, the labels of all training images")
    if cls.needs.labels and not task.labels:
        raise ConfigError(f"method '{name}' wants one class label an image; {task.name} has none")
    if cls.needs.scores and not task.scores:
        raise ConfigError(
            f"method '{name}' wants outputs that are class scores, unlike {task.name}"
        )


def _like(example: Tensor, network: nn.Module) -> Tensor:
    first = next(network.parameters(), example)
    return example.to(first.device)


def settings_of(recipe: Recipe) -> Settings:
    """The part of a recipe that the training loop reads."""
    return Settings(**{f.name: getattr(recipe, f.name) for f in fields(Settings)})


def make_fabric(recipe: Recipe) -> Fabric:
    """Devices, precision and processes.

    Raises:
        ConfigError: a precision that the device does not have.
        ResourceError: the device is not there.
    """
    there = {"cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available()}
    if not there.get(recipe.device, True):
        raise ResourceError(f"this machine shows torch no {recipe.device} device; try --device cpu")
    accelerator = recipe.device
    if accelerator == "auto":
        accelerator = "cuda" if there["cuda"] else "cpu"
    if recipe.precision == "fp16" and accelerator == "cpu":
        raise ConfigError("fp16 needs a GPU; --precision bf16 works on the CPU")
    precision = {"fp32": "32-true", "bf16": "bf16-mixed", "fp16": "16-mixed"}[recipe.precision]
    strategy: Any = "auto"
    if recipe.devices * recipe.nodes > 1:
        # Buffers hold per-sample memories in some methods: a broadcast would overwrite them.
        strategy = DDPStrategy(broadcast_buffers=False)
    return Fabric(
        accelerator=accelerator,
        devices=recipe.devices,
        num_nodes=recipe.nodes,
        precision=precision,  # type: ignore[arg-type]
        strategy=strategy,
    )


def train_loader(recipe: Recipe, data: ImageData, method: Method, fabric: Fabric) -> Loader:
    """Training batches of this process.

    Raises:
        DataError: a process would see fewer images at once than the method needs.
    """
    share = recipe.batch_size // (recipe.accumulate * fabric.world_size)
    if share < method.needs.batch:
        raise DataError(
            f"method '{recipe.method}' compares images and needs {method.needs.batch} or more at "
            f"once, and each forward pass would see {share}; raise --batch-size"
        )
    return Loader(
        data.train,
        batch_size=recipe.batch_size,
        seed=recipe.seed,
        mean=data.mean,
        std=data.std,
        crop=data.crop,
        flip=data.flip,
        resized_crop=data.resized_crop,
        views=method.needs.views,
        rank=fabric.global_rank,
        world_size=fabric.world_size,
        micro_batches=recipe.accumulate,
        device=fabric.device,
        workers=recipe.workers,
        channels_last=recipe.channels_last,
    )


def eval_loader(recipe: Recipe, data: ImageData, images: Any, fabric: Fabric) -> EvalLoader:
    """Batches of a validation or test set, in order, this process's share."""
    return EvalLoader(
        images,
        batch_size=max(recipe.batch_size, 256),
        mean=data.mean,
        std=data.std,
        rank=fabric.global_rank,
        world_size=fabric.world_size,
        device=fabric.device,
        workers=recipe.workers,
    )
