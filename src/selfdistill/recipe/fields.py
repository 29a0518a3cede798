"""All keys of a recipe. Imports no torch: the command line is built from them.

A key that is added here, or to the engine's settings, appears in recipes, on the command lines of
train, doctor and compare, and in the reference.
"""

import os
from functools import partial
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, BeforeValidator, Field
from pydantic.fields import FieldInfo

from ..engine.settings import TrainingSettings, option

_subject = partial(option, panel="Method and network")
_data = partial(option, panel="Data")
_augmentation = partial(option, panel="Augmentation")
_training = partial(option, panel="Training")
_tuning = partial(option, panel="Fine-tuning")
_hardware = partial(option, panel="Hardware")
_cache = partial(option, panel="Teacher cache")
_output = partial(option, panel="Logging and checkpoints")


def _as_list(value: Any) -> Any:
    """One number for all channels as a list of one."""
    return [value] if isinstance(value, int | float | str) else value


def _expanded(value: str) -> str:
    """A path with the home folder for ~, which no shell replaces behind `folder:`."""
    kind, colon, path = value.partition(":")
    return kind + colon + os.path.expanduser(path) if colon else os.path.expanduser(value)


_Path = Annotated[str, AfterValidator(_expanded)]
_Mean = Annotated[tuple[Annotated[float, Field(ge=0)], ...], BeforeValidator(_as_list)]
_Gains = Annotated[tuple[Annotated[float, Field(ge=0, le=1)], ...], BeforeValidator(_as_list)]
_Std = Annotated[tuple[Annotated[float, Field(gt=0)], ...], BeforeValidator(_as_list)]


class ExperimentSettings(BaseModel):
    """Settings that the training loop does not read: method, networks, data and devices."""

    method: str = _subject(
        "",
        "Training method, see selfdistill methods; a+b joins two of them.",
        unset="by what is measured for the task",
    )
    model: str = _subject(
        "cifar/resnet10_w16",
        "Network to train, see selfdistill models; NAME@MODULE cuts it behind a module. With the "
        "weights of a run it is the run's, if none is named.",
    )
    weights: _Path = _subject(
        "",
        "Initial weights: 'pretrained', a run directory, or a file such as .safetensors or .pth.",
        unset="random",
        metavar="FILE",
    )
    preset: Literal["auto", "scratch", "finetune", "strong", "paper"] = _subject(
        "auto",
        "Settings to begin with, see the reference; auto is finetune from initial weights, else "
        "scratch.",
    )
    taps: str = _subject(
        "auto", "Modules whose features are read, with commas, see selfdistill taps."
    )
    teacher: _Path = _subject(
        "",
        "Teacher of offline methods: a run directory, a weights file or timm/NAME.",
        metavar="TEACHER",
    )
    teacher_model: str = _subject(
        "",
        "Network of a teacher that is a weights file.",
        unset="the student's",
        metavar="MODEL",
    )
    teacher_taps: str = _subject("auto", "Modules of the teacher whose features are read.")
    teacher_image_size: int | None = _subject(
        None,
        "Side of the images in pixels that the teacher is shown.",
        unset="the student's, or the teacher's own where it takes no other",
        ge=1,
    )
    peers: tuple[str, ...] = _subject(
        (),
        "Network that online methods train along with the student; may be repeated.",
        unset="one like the student",
        metavar="MODEL",
        flag="--peer",
    )
    imports: tuple[str, ...] = _subject(
        (),
        "Python module or file to import first, which registers methods, networks or data "
        "sources; may be repeated.",
        metavar="MODULE",
        flag="--import",
    )
    task: str = _data(
        "classification",
        "Task: classification, clips, segmentation or detection; embedding where a method reads no "
        "label.",
        metavar="TASK",
    )
    data: _Path = _data(
        "digits", "Data set: a name, folder:PATH, csv:FILE, npz:FILE, wds:SHARDS or hf:SET."
    )
    data_root: _Path = _data("data", "Directory of downloaded data sets.", metavar="DIRECTORY")
    extra: _Path = _data(
        "",
        "Images without labels, for methods that learn from them, too: folder:PATH, npz:FILE, "
        "wds:SHARDS or hf:SET.",
        unset="none",
        metavar="SOURCE",
    )
    image_size: int | None = _data(
        None, "Side of the images in pixels.", unset="the data set's", ge=1
    )
    mean: _Mean = _data(
        (),
        "Mean that images are normalized by, of pixels in 0 … 1: a number a channel, or one.",
        unset="that of the initial weights, else the data set's",
        metavar="NUMBER,…",
    )
    std: _Std = _data(
        (),
        "Standard deviation that images are normalized by, given with the mean.",
        unset="that of the initial weights, else the data set's",
        metavar="NUMBER,…",
    )
    val_fraction: float = _data(
        0.1, "Fraction of the training images held out for validation.", ge=0, lt=1
    )
    max_train_images: int | None = _data(
        None, "Maximum number of training images.", unset="all", ge=1
    )
    crop_padding: int | None = _augmentation(
        None, "Padding of the random crop in pixels.", unset="the data set's", ge=0
    )
    flip: bool | None = _augmentation(None, "Random horizontal flip.", unset="the data set's")
    max_zoom: float | None = _augmentation(
        None, "Maximum random enlargement; 1 disables it.", unset="the data set's", ge=1
    )
    color_jitter: float = _augmentation(
        0.0, "Strength of random brightness, contrast and saturation; 0 disables them.", ge=0, le=1
    )
    hsv_jitter: _Gains = _augmentation(
        (),
        "Random hue, saturation and value: the largest change of each as a part of itself, such as "
        "0.015,0.7,0.4.",
        unset="none",
        metavar="NUMBER,…",
    )
    scale_jitter: float = _augmentation(
        0.0,
        "Random scale of images with boxes or masks, 1 − this … 1 + this, in place of the zoom.",
        ge=0,
        lt=1,
    )
    shift: float = _augmentation(
        0.0,
        "Largest random shift of images with boxes or masks, as a part of their sides, in place of "
        "the zoom.",
        ge=0,
        le=1,
    )
    mosaic_probability: float = _augmentation(
        0.0, "Probability of four images with boxes or masks in one.", ge=0, le=1
    )
    mosaic_fraction: float = _augmentation(
        1.0, "Fraction of the epochs, from the first on, that have mosaics.", ge=0, le=1
    )
    auto_augment: Literal["off", "randaugment", "trivial"] = _augmentation(
        "off", "Random operations on whole images: RandAugment, or TrivialAugment."
    )
    randaugment_operations: int = _augmentation(
        2, "Operations of RandAugment on an image, one after the other.", ge=1
    )
    randaugment_strength: int = _augmentation(
        9, "Strength of RandAugment's operations.", ge=0, le=30
    )
    erase_probability: float = _augmentation(
        0.0, "Probability with which a random rectangle of an image is erased.", ge=0, le=1
    )
    mixup: float = _augmentation(
        0.0, "Concentration of mixup's Beta distribution, such as 0.2; 0 mixes none.", ge=0
    )
    cutmix: float = _augmentation(
        0.0,
        "Concentration of CutMix's Beta distribution, such as 1; 0 mixes none, and with mixup each "
        "image gets one of the two.",
        ge=0,
    )
    ignore_index: int | None = _data(None, "Mask value that is no class, in addition to 255.", ge=0)
    empty_images: Literal["keep", "refuse", "missing"] = _data(
        "keep", "Images without a box; missing keeps those without annotation file, too."
    )
    invalid_boxes: Literal["refuse", "fix"] = _data(
        "refuse",
        "Boxes without area or outside of their image; fix drops the former and clips the latter.",
    )
    clip_frames: int = _data(16, "Frames of a clip of a video.", ge=1)
    clip_stride: int = _data(1, "Frames of a video from one frame of a clip to the next.", ge=1)
    short_videos: Literal["loop", "refuse"] = _data(
        "loop", "Videos shorter than a clip; loop starts them again behind their end."
    )
    cache_views: int = _cache(
        0,
        "Augmentations of each image, after which they come again, so that a teacher's outputs are "
        "kept and read; 0 draws new ones in every epoch and keeps nothing.",
        ge=0,
    )
    cache_classes: int | None = _cache(
        None,
        "Largest scores of each output that are kept; the others share the rest's mass.",
        unset="all",
        ge=1,
    )
    cache_precision: Literal["fp32", "fp16"] = _cache("fp32", "Precision of the kept scores.")
    cache_temperature: float = _cache(
        4.0, "Temperature at which the mass of the scores that are not kept is exact.", gt=0
    )
    cache_seed: int = _cache(
        0, "Seed of the augmentations, which all runs that share kept outputs have in common.", ge=0
    )
    cache_dir: _Path = _cache(
        "teacher-cache", "Directory of the kept outputs.", metavar="DIRECTORY"
    )
    label_smoothing: float = _training(0.0, "Label smoothing of the supervised loss.", ge=0, lt=1)
    batch_size: int = _training(64, "Images per optimizer step, over all devices.", ge=1)
    accumulation_steps: int = _training(
        1, "Forward and backward passes per optimizer step, which share the batch.", ge=1
    )
    freeze_until: str = _tuning(
        "",
        "Module of the network, see selfdistill taps, up to which nothing is trained.",
        unset="all is trained",
        metavar="MODULE",
    )
    layer_decay: float = _tuning(
        1.0,
        "Factor on the learning rate from a block of the network to the one before.",
        gt=0,
        le=1,
    )
    head_lr_factor: float = _tuning(
        1.0, "Factor on the learning rate of the network's head, behind its last stage.", gt=0
    )
    quantize: Literal["off", "aware"] = _tuning(
        "off",
        "Quantization-aware training: aware simulates int8 in the layers of the network and of its "
        "exits.",
    )
    device: Literal["auto", "cpu", "cuda", "mps"] = _hardware("auto", "Device to train on.")
    devices: int = _hardware(1, "Processes per node, one device each (DDP).", ge=1)
    num_nodes: int = _hardware(1, "Machines; start the same command on each.", ge=1)
    shard_teacher: bool = _hardware(
        False,
        "Whether the processes split a teacher's weights among them and gather them layer by layer "
        "(FSDP2), for one that fills a device.",
    )
    num_workers: int = _hardware(
        2, "Processes that load images which do not fit into memory.", ge=0
    )
    track: Literal["off", "tensorboard", "wandb", "mlflow", "trackio"] = _output(
        "off", "Experiment tracker that metrics.jsonl is sent to as well."
    )
    track_project: str = _output(
        "selfdistill", "Project under which the tracker lists the run.", metavar="NAME"
    )


# Fields come in the order of the bases from last to first.
class Recipe(TrainingSettings, ExperimentSettings):
    """All settings of one run; the defaults are those of the quick start."""

    options: dict[str, Any] = Field(default_factory=dict, description="Options of the method.")


def default_text(field: FieldInfo) -> str:
    """A field's default as a recipe states it, or the meaning of an empty one."""
    if field.default in (None, "", ()):
        extra: Any = field.json_schema_extra
        return str(extra["unset"])
    if isinstance(field.default, float):
        return f"{field.default:g}"
    return str(field.default).lower() if isinstance(field.default, bool) else str(field.default)
