"""Whether a run's teacher can be read from a store, which one, and its size."""

import hashlib
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple, cast

import torch
from lightning_fabric import Fabric
from torch import Tensor, nn

from ..core import ConfigError, Method, ResourceError
from ..data import ImageData, ImageFiles, ImageSet, Loader
from ..data.preparation import preparation_of
from ..engine.protocols import Batches
from ..modules.joined_methods import joined_parts
from ..taps import Teacher, example_output
from ..teacher_cache import CachedTeacherBatches, OutputEncoding, OutputStore
from .build_method import teacher_network
from .build_run import RunComponents
from .options import method_classes
from .schema import Recipe
from .teachers import fingerprint

_UNITS = {"GB": 1e9, "MB": 1e6}
_SAMPLE_BYTES = 4  # the index of a sample, beside its outputs


class PreparedBatches(NamedTuple):
    """Batches, and a sentence on where the teacher's outputs come from, "" where nobody asked."""

    batches: Batches
    note: str = ""


def with_teacher_cache(
    batches: Batches, components: RunComponents, fabric: Fabric
) -> PreparedBatches:
    """The batches of a run, with the kept outputs of its teacher where its method can use them.

    Raises:
        ConfigError: a method standardizes scores of which only some are kept.
        ResourceError: the outputs would not fit the disk.
    """
    recipe = components.recipe
    if not recipe.cache_views:
        return PreparedBatches(batches)
    if components.teacher is None:
        views = "one view" if recipe.cache_views == 1 else f"{recipe.cache_views} views"
        return PreparedBatches(
            batches, f"there is no teacher to keep, and each image has {views} all the same"
        )
    network = teacher_network(components.teacher)
    output = example_output(network, components.task.example)
    if reason := _live_reason(components, output):
        return PreparedBatches(batches, f"{reason}: the teacher runs in every step")
    loader = cast(Loader, batches)
    pooling = next(iter(_pooling_teachers(components.method)), None)
    encoding = _encoding(recipe, output.shape[1], pooling)
    tap = pooling.names[-1] if pooling else ""
    description: Any = None
    if fabric.is_global_zero:
        description = describe_outputs(components.data, recipe, network, encoding, tap)
    description = fabric.broadcast(description)
    images = len(loader.images)
    store = OutputStore(Path(recipe.cache_dir), description, images, fabric.global_rank)
    needed = cache_bytes(recipe, encoding, images, output[0, 0].numel(), loader.views)
    _check_space(store, needed)
    cached = CachedTeacherBatches(loader, pooling or network, encoding, store, fabric.autocast)
    kept = "all" if encoding.kept == encoding.classes else f"the {encoding.kept} largest"
    feature = f" and the pooled feature at {tap}" if tap else ""
    temperatures = _temperatures(recipe) - {encoding.temperature}
    if temperatures and encoding.kept < encoding.classes:
        kept += f", with the mass of the others exact at temperature {encoding.temperature:g}"
        kept += f" and not at the method's {', '.join(f'{t:g}' for t in sorted(temperatures))},"
    note = (
        f"the teacher's outputs are kept in {store.folder}: {recipe.cache_views} views of "
        f"{images:,} images, {kept} of {encoding.classes} scores{feature} in {encoding.precision}, "
        f"{_size(needed)}, of which {_size(min(needed, store.num_bytes))} are there"
    )
    return PreparedBatches(cached, note)


def describe_kept_outputs(components: RunComponents, batches: Batches) -> str:
    """What of the teacher a run would keep on the disk, or why nothing, a clause; "" if not asked.

    Args:
        components: of the run.
        batches: its training loader.
    """
    recipe = components.recipe
    if not recipe.cache_views or components.teacher is None:
        return ""
    output = example_output(teacher_network(components.teacher), components.task.example)
    if reason := _live_reason(components, output):
        return f"nothing: {reason}"
    pooling = next(iter(_pooling_teachers(components.method)), None)
    loader, encoding = cast(Loader, batches), _encoding(recipe, output.shape[1], pooling)
    images = len(loader.images)
    needed = cache_bytes(recipe, encoding, images, output[0, 0].numel(), loader.views)
    epochs = min(recipe.cache_views, recipe.epochs)
    return f"{_size(needed)} in {recipe.cache_dir}, {epochs} views of {images:,} images"


def cache_bytes(
    recipe: Recipe, encoding: OutputEncoding, images: int, places: int = 1, views: int = 1
) -> int:
    """Bytes of all that a run keeps.

    Args:
        recipe: how often views are drawn anew.
        encoding: of the outputs.
        images: of the training set.
        places: of an output, 1 for a classifier's.
        views: of an image at once.
    """
    epochs = min(recipe.cache_views, recipe.epochs)
    return epochs * views * images * (encoding.num_bytes(places) + _SAMPLE_BYTES)


def _live_reason(components: RunComponents, output: Any) -> str:
    """Why a run's teacher cannot be read from a store, a clause, or ""."""
    for name, part in joined_parts(components.method).items():
        if part.kind == "offline" and part.teacher_reads == "features":
            name = name or components.recipe.method
            return f"method '{name}' reads more of its teacher than outputs and the pooled feature"
    if len({teacher.names[-1] for teacher in _pooling_teachers(components.method)}) > 1:
        return "the methods read the teacher's last feature in two places"
    if components.recipe.mixup or components.recipe.cutmix:
        return "images are mixed with others of their batch, which is never the same"
    if components.data.extra is not None:
        return "outputs for extra images are not kept"
    if not (isinstance(output, Tensor) and output.dim() > 1):
        return "the teacher's output is not one tensor of scores"
    return ""


def _pooling_teachers(method: Method) -> list[Teacher]:
    """The teachers of those parts of a method that read the pooled feature."""
    parts = joined_parts(method).values()
    return [cast(Teacher, part.teacher) for part in parts if part.teacher_reads == "pooled"]


def _encoding(recipe: Recipe, classes: int, pooling: Teacher | None) -> OutputEncoding:
    kept = min(recipe.cache_classes or classes, classes)
    if kept < classes and any(t.get("standardize_logits") for t in _option_tables(recipe)):
        raise ConfigError(
            f"standardize_logits wants all scores of the teacher, and cache_classes={kept} keeps "
            f"{kept} of {classes}; leave out one of them"
        )
    # where all are kept it decides nothing, and is to lead to no other folder
    temperature = 1.0 if kept == classes else recipe.cache_temperature
    width = pooling.shapes[pooling.names[-1]][0] if pooling else 0
    return OutputEncoding(classes, kept, recipe.cache_precision, temperature, width)


def _option_tables(recipe: Recipe) -> list[Mapping[str, Any]]:
    """The options of each method that is joined, or of the only one."""
    joined = len(method_classes(recipe.method)) > 1
    return list(recipe.options.values()) if joined else [recipe.options]


def _temperatures(recipe: Recipe) -> set[float]:
    return {table["temperature"] for table in _option_tables(recipe) if "temperature" in table}


def _check_space(store: OutputStore, needed: int) -> None:
    """Raises `ResourceError` if what is missing does not fit the disk."""
    if needed - store.num_bytes <= store.free_bytes:
        return
    raise ResourceError(
        f"the teacher's outputs take {_size(needed)} in {store.folder}, where "
        f"{_size(store.num_bytes)} of them are and {_size(store.free_bytes)} are free; lower "
        "--cache-views, keep less of each by --cache-classes 20 --cache-precision fp16, or name "
        "another --cache-dir"
    )


def _size(count: int) -> str:
    unit, factor = next((u for u in _UNITS.items() if count >= u[1]), ("kB", 1e3))
    return f"{count / factor:,.1f} {unit}"


def describe_outputs(
    data: ImageData, recipe: Recipe, teacher: nn.Module, encoding: OutputEncoding, tap: str = ""
) -> dict[str, Any]:
    """All that the outputs depend on, but sample, epoch and view.

    Args:
        data: whose training images are shown.
        recipe: how they are augmented.
        teacher: the network.
        encoding: of what it gives.
        tap: where the pooled feature is read, if it is kept.
    """
    scores = encoding._asdict()
    width = scores.pop("pooled_width")
    return {
        **({"pooled": {"tap": tap, "channels": width}} if width else {}),
        "teacher": _network_digest(teacher),
        "precision": recipe.precision,
        "images": {"number": len(data.train), "sha256": _images_digest(data.train)},
        "preparation": preparation_of(data).to_fields(),
        "normalization": [data.mean, data.std],
        "augmentation": {
            "seed": recipe.cache_seed,
            "crop_padding": data.crop_padding,
            "flip": data.flip,
            "resized_crop": data.resized_crop,
            "max_zoom": data.max_zoom,
            "color_jitter": data.color_jitter,
            "hsv_jitter": recipe.hsv_jitter,
            "scale_jitter": recipe.scale_jitter,
            "shift": recipe.shift,
            "mosaic_probability": recipe.mosaic_probability,
            "auto_augment": recipe.auto_augment,
            "randaugment": [recipe.randaugment_operations, recipe.randaugment_strength],
            "erase_probability": recipe.erase_probability,
        },
        "scores": scores,
    }


def _network_digest(network: nn.Module) -> str:
    """SHA-256 of a network's layers, state, and what is done to its images."""
    layers = re.sub(r"0x[0-9a-f]+", "", repr(network))  # addresses change
    digest = hashlib.sha256(f"{type(network).__qualname__} {layers}".encode())
    digest.update(fingerprint(network).encode())
    for hook in network._forward_pre_hooks.values():  # of `models.renormalize`
        digest.update(repr(getattr(hook, "keywords", {})).encode())
    for name, buffer in sorted(network.named_buffers()):  # those that are not persistent, too
        digest.update(name.encode())
        digest.update(_raw_bytes(buffer))
    return digest.hexdigest()


def _images_digest(images: ImageSet) -> str:
    """SHA-256 of pixels in memory, or of the relative paths and sizes of files, in order."""
    digest = hashlib.sha256(type(images).__name__.encode())
    for name, tensor in sorted(vars(images).items()):
        if isinstance(tensor, Tensor):  # pixels, lengths of videos
            digest.update(f"{name} {tuple(tensor.shape)}".encode())
            digest.update(_raw_bytes(tensor))
    if isinstance(images, ImageFiles):
        for index, identity in enumerate(images.identities()):
            digest.update(identity + f"\0{images.num_bytes(index)}\0".encode())
    return digest.hexdigest()


def _raw_bytes(tensor: Tensor) -> memoryview:
    return tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().data
