"""Batches of a run's images: for training, as its method needs them, and for evaluation."""

from typing import Any

from lightning_fabric import Fabric

from ..core import ConfigError, DataError, Method
from ..data import EvalLoader, ImageData, ImageSet, Loader, LoaderWithExtra, UnlabeledLoader
from ..data.auto_augment import AutoAugment
from ..data.extra_images import extra_seed
from ..data.mixing import Mixing
from ..engine.protocols import Batches
from ..tasks import TASKS
from .augmentation_check import check_augmentation
from .schema import Recipe


def train_loader(recipe: Recipe, data: ImageData, method: Method, fabric: Fabric) -> Batches:
    """Training batches of this process.

    Raises:
        ConfigError: extra images are missing, or of no use.
        DataError: a process would see fewer images at once than the method needs, or too few extra
            images are there.
    """
    _check_extra(recipe, data, method)
    check_augmentation(recipe, data, method)
    share = recipe.batch_size // (recipe.accumulation_steps * fabric.world_size)
    if share < method.needs.batch:
        raise DataError(
            f"method '{recipe.method}' compares images and needs {method.needs.batch} or more at "
            f"once, and each forward pass would see {share}; raise --batch-size"
        )
    own: dict[str, Any] = {
        "views": method.needs.views,
        "same_class": method.needs.same_class,
        "view_cycle": recipe.cache_views,
        "mosaic_probability": recipe.mosaic_probability,
        "mixing": Mixing(recipe.seed, len(data.classes), recipe.mixup, recipe.cutmix),
    }
    if data.extra is None:
        return _augmented_loader(recipe, data, fabric, data.train, recipe.seed, **own)
    images = data.extra.in_shape(data.train.shape)
    extra = _augmented_loader(recipe, data, fabric, images, extra_seed(recipe.seed))
    unaugmented = eval_loader(recipe, data, extra.images, fabric)
    if method.needs.unlabeled:
        return UnlabeledLoader(extra, unaugmented)
    training = _augmented_loader(recipe, data, fabric, data.train, recipe.seed, **own)
    return LoaderWithExtra(training, extra, unaugmented)


def _check_extra(recipe: Recipe, data: ImageData, method: Method) -> None:
    """Raises if a method lacks extra images, has no use for them, or there are too few."""
    needed = method.needs.extra
    if needed and data.extra is None:
        raise ConfigError(
            f"method '{recipe.method}' with these options learns from images without labels, too: "
            "give --extra folder:PATH, npz:FILE, wds:SHARDS or hf:SET"
        )
    if data.extra is None:
        return
    if not needed:
        raise ConfigError(
            f"method '{recipe.method}' with these options has no use for extra images; leave "
            f"--extra out, or see selfdistill methods {recipe.method} for those that have"
        )
    if (count := len(data.extra.images)) < recipe.batch_size:
        raise DataError(
            f"{count:,} images of {data.extra.name} do not fill one batch of {recipe.batch_size}; "
            "add some, or lower --batch-size"
        )


def _augmented_loader(
    recipe: Recipe,
    data: ImageData,
    fabric: Fabric,
    images: ImageSet,
    seed: int,
    *,
    views: int = 1,
    same_class: bool = False,
    view_cycle: int = 0,
    mixing: Mixing | None = None,
    mosaic_probability: float = 0.0,
) -> Loader:
    """Batches of images, augmented and normalized as the training images of these data are.

    Views that come again are those of every run, whatever its seed.
    """
    view_seed = recipe.cache_seed if view_cycle else seed
    auto = None
    if recipe.auto_augment != "off":
        numbers = recipe.randaugment_operations, recipe.randaugment_strength
        auto = AutoAugment(recipe.auto_augment, view_seed, *numbers)
    return Loader(
        images,
        batch_size=recipe.batch_size,
        seed=seed,
        mean=data.mean,
        std=data.std,
        crop_padding=data.crop_padding,
        flip=data.flip,
        resized_crop=data.resized_crop,
        max_zoom=data.max_zoom,
        color_jitter=data.color_jitter,
        hsv_jitter=recipe.hsv_jitter,
        scale_jitter=recipe.scale_jitter,
        shift=recipe.shift,
        mosaic_probability=mosaic_probability,
        mosaic_epochs=round(recipe.mosaic_fraction * recipe.epochs),
        auto_augment=auto,
        erase_probability=recipe.erase_probability,
        mixing=mixing,
        views=views,
        same_class=same_class,
        rank=fabric.global_rank,
        world_size=fabric.world_size,
        micro_batches=recipe.accumulation_steps,
        device=fabric.device,
        workers=recipe.num_workers,
        channels_last=bool(recipe.channels_last),
        view_cycle=view_cycle,
        view_seed=view_seed,
    )


def eval_loader(recipe: Recipe, data: ImageData, images: Any, fabric: Fabric) -> EvalLoader:
    """Batches of a validation or test set, in order, this process's share."""
    task = TASKS[data.task]
    small = task.image_labels and not task.clips  # unlike clips and the scores of all pixels
    return EvalLoader(
        images,
        batch_size=max(recipe.batch_size, 256) if small else recipe.batch_size,
        mean=data.mean,
        std=data.std,
        rank=fabric.global_rank,
        world_size=fabric.world_size,
        device=fabric.device,
        workers=recipe.num_workers,
    )
