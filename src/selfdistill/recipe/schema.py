"""A recipe: everything that makes a run, flat and complete, as TOML."""

import tomllib
import types
import typing
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

import tomli_w
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from ..core import ConfigError, nearest
from .options import check_companions, check_options, first_error

Positive = Annotated[int, Field(ge=1)]
Fraction = Annotated[float, Field(ge=0, lt=1)]
NotNegative = Annotated[float, Field(ge=0)]


class Recipe(BaseModel):
    """One run. Field descriptions are the documentation; defaults are those of the quick start."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    method: str = Field(
        "muse", description="how to train; `selfdistill methods` lists them, + joins several"
    )
    model: str = Field(
        "cifar/resnet10_w16", description="the network; `selfdistill models` lists them"
    )
    weights: str = Field(
        "", description="start from 'pretrained' or a .safetensors, .pt or .pth file"
    )
    taps: str = Field("auto", description="where to read features: 'auto', or names with commas")
    teacher: str = Field(
        "", description="a run's directory, a weights file or timm/NAME; for offline methods"
    )
    teacher_model: str = Field(
        "", description="the network of a teacher's weights file; none is the student's"
    )
    teacher_taps: str = Field("auto", description="where to read the teacher's features")
    peers: tuple[str, ...] = Field(
        (), description="networks trained along, for online methods; none is one like the student"
    )
    task: Literal["classification", "segmentation", "detection"] = Field(
        "classification", description="what the labels of the data mean"
    )
    data: str = Field("digits", description="a data set's name, folder:PATH or npz:PATH")
    data_root: str = Field("data", description="where downloaded data sets are kept")
    image_size: Positive | None = Field(
        None, description="side in pixels; none keeps the data's own"
    )
    val: Fraction = Field(0.1, description="part of the training images held out to choose by")
    limit: Positive | None = Field(None, description="use only so many training images")
    crop: Annotated[int, Field(ge=0)] | None = Field(
        None, description="padding of the random crop; none takes the data's own"
    )
    flip: bool | None = Field(None, description="mirror at random; none takes the data's own")
    zoom: Annotated[float, Field(ge=1)] | None = Field(
        None, description="largest random enlargement, 1 is none; none takes the data's own"
    )
    ignore: Annotated[int, Field(ge=0)] | None = Field(
        None, description="value of a mask that is no class, besides 255"
    )
    empty: Literal["keep", "refuse", "missing"] = Field(
        "keep", description="images without a box; missing keeps those without annotation, too"
    )
    faulty: Literal["refuse", "mend"] = Field(
        "refuse", description="boxes without area or out of their image; mend drops or clips them"
    )
    label_smoothing: Fraction = Field(0.0, description="of the supervised loss")
    epochs: Positive = Field(30, description="passes over the training images")
    batch_size: Positive = Field(64, description="images an optimizer step, over all devices")
    accumulate: Positive = Field(1, description="forward passes that share an optimizer step")
    seed: Annotated[int, Field(ge=0)] = Field(0, description="of weights, order and augmentation")
    optimizer: Literal["sgd", "adamw"] = Field("sgd", description="sgd (with momentum) or adamw")
    lr: Annotated[float, Field(gt=0)] = Field(0.05, description="the highest learning rate")
    momentum: Fraction = Field(0.9, description="of sgd")
    nesterov: bool = Field(True, description="Nesterov's form of the momentum")
    weight_decay: NotNegative = Field(5e-4, description="on all weights, heads and critics too")
    schedule: Literal["cosine", "step", "constant"] = Field("cosine", description="of the rate")
    milestones: tuple[Annotated[int, Field(ge=0)], ...] = Field(
        (), description="epochs (from 0) at which 'step' drops it"
    )
    gamma: Annotated[float, Field(gt=0, le=1)] = Field(0.1, description="factor of a drop")
    lr_end: Annotated[float, Field(ge=0, le=1)] = Field(
        0.0, description="part of the highest rate at which 'cosine' ends"
    )
    warmup: NotNegative = Field(0.0, description="epochs of linear warm-up")
    clip: NotNegative = Field(0.0, description="largest norm of the gradient; 0 does not clip")
    ema: Fraction = Field(0.0, description="decay of averaged weights, which are then judged")
    precision: Literal["fp32", "bf16", "fp16"] = Field("fp32", description="of the arithmetic")
    channels_last: bool = Field(False, description="memory format; faster convolutions with bf16")
    compile: bool = Field(False, description="torch.compile; pays off in long runs on a GPU")
    device: Literal["auto", "cpu", "cuda", "mps"] = Field("auto", description="where to train")
    devices: Positive = Field(1, description="processes on each node (DDP)")
    nodes: Positive = Field(1, description="machines; start the same command on each")
    workers: Annotated[int, Field(ge=0)] = Field(2, description="loading processes, streamed data")
    log_every: Positive = Field(20, description="optimizer steps between two lines of metrics")
    save_every: Annotated[int, Field(ge=0)] = Field(
        0, description="optimizer steps between checkpoints; 0 is each epoch"
    )
    val_every: Positive = Field(1, description="epochs between two looks at the validation images")
    options: dict[str, Any] = Field(default_factory=dict, description="the method's own keywords")


_MODELS = {"segmentation": "fpn/small", "detection": "yolov5/n"}
"""The network where none is named, by task."""


def parse(values: Mapping[str, Any]) -> Recipe:
    """A checked and complete recipe; the method's defaults are filled in.

    Raises:
        ConfigError: an unknown key, method or option, or a value that does not fit.
    """
    for key in values:
        if key not in Recipe.model_fields:
            raise ConfigError(f"a recipe has no key '{key}'{nearest(key, Recipe.model_fields)}")
    usual = {"model": _MODELS[values["task"]]} if values.get("task") in _MODELS else {}
    try:
        recipe = Recipe.model_validate({**usual, **values})
    except ValidationError as error:
        raise ConfigError(first_error(error)) from None
    check_companions(recipe.method, bool(recipe.teacher), bool(recipe.peers))
    chosen = check_options(recipe.method, recipe.options)
    return recipe.model_copy(update={"options": chosen})


def read(path: Path) -> dict[str, Any]:
    """A recipe file as a dictionary, not yet checked.

    Raises:
        ConfigError: no such file, or not TOML.
    """
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError(f"the recipe {path} cannot be read: {error.strerror}") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"the recipe {path} is not TOML: {error}") from None


def write(recipe: Recipe) -> str:
    """The recipe as TOML; what is none is left out, since TOML has no word for it."""
    flat = recipe.model_dump(exclude={"options"}, exclude_none=True)
    return tomli_w.dumps({**flat, "options": _without_none(recipe.options)})


def _without_none(table: Mapping[str, Any]) -> dict[str, Any]:
    return {
        key: _without_none(value) if isinstance(value, Mapping) else value
        for key, value in table.items()
        if value is not None
    }


def literal(text: str) -> Any:
    """The value that a person means by `text`: a TOML value, none, or else the text itself."""
    if text.lower() == "none":
        return None
    try:
        value = tomllib.loads(f"value = {text}")
    except tomllib.TOMLDecodeError:
        return {"True": True, "False": False}.get(text, text)
    plain = len(value) == 1 and isinstance(value["value"], (bool, int, float, str, list))
    return value["value"] if plain else text


def type_name(annotation: Any) -> str:
    """An annotation as a user would write it: `add | mul`, `float`, `int | none`."""
    if typing.get_origin(annotation) is Literal:
        return " | ".join(str(choice) for choice in typing.get_args(annotation))
    if typing.get_origin(annotation) in (typing.Union, types.UnionType):
        return " | ".join(type_name(part) for part in typing.get_args(annotation))
    if annotation is type(None):
        return "none"
    return getattr(annotation, "__name__", str(annotation))
