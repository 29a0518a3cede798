"""The settings that the training loop reads, each declared once; a recipe inherits them.

Imports no torch, since the options of the command line are built from these fields.
"""

from functools import partial
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field


def option(
    default: Any,
    description: str,
    *,
    panel: str,
    unset: str = "none",
    metavar: str = "",
    flag: str = "",
    **bounds: float,
) -> Any:
    """A field that is a key of recipes and an option of the command line.

    Args:
        default: value where none is given.
        description: help text, a sentence.
        panel: heading under which help and reference list it.
        unset: meaning of an empty default, in words.
        metavar: name of the value in help; empty is its type's.
        flag: option on the command line; empty is the key with dashes.
        bounds: `ge`, `gt`, `le` and `lt` of `pydantic.Field`.
    """
    extra: Any = {"panel": panel, "unset": unset, "metavar": metavar, "flag": flag}
    return Field(default, description=description, json_schema_extra=extra, **bounds)  # type: ignore[call-overload]


_training = partial(option, panel="Training")
_tuning = partial(option, panel="Fine-tuning")
_hardware = partial(option, panel="Hardware")
_output = partial(option, panel="Logging and checkpoints")


class TrainingSettings(BaseModel):
    """Settings of the training loop, checked when created."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    epochs: int = _training(30, "Passes over the training images.", ge=1)
    seed: int = _training(0, "Random seed of initial weights, sample order and augmentation.", ge=0)
    optimizer: str = _training(
        "sgd", "Optimizer: sgd, adamw, or the name of one of timm's.", metavar="NAME"
    )
    lr: float = _training(0.05, "Peak learning rate.", gt=0)
    momentum: float = _training(0.9, "Momentum of SGD.", ge=0, lt=1)
    nesterov: bool = _training(True, "Nesterov momentum in SGD.")
    weight_decay: float = _training(
        5e-4, "Weight decay, on all parameters including heads and critics.", ge=0
    )
    norm_decay: bool = _training(True, "Weight decay on norms and biases, too.")
    lr_schedule: Literal["cosine", "step", "constant"] = _training(
        "cosine", "Learning rate schedule."
    )
    milestones: tuple[Annotated[int, Field(ge=0)], ...] = _training(
        (), "Epochs (counted from 0) at which the step schedule drops.", metavar="EPOCH,…"
    )
    lr_gamma: float = _training(0.1, "Factor on the learning rate at each milestone.", gt=0, le=1)
    lr_end_ratio: float = _training(
        0.0, "Final learning rate of the cosine schedule, as a fraction of the peak.", ge=0, le=1
    )
    warmup_epochs: float = _training(0.0, "Epochs of linear learning rate warm-up.", ge=0)
    clip_grad_norm: float = _training(
        0.0, "Maximum norm of the gradient; 0 disables clipping.", ge=0
    )
    ema_decay: float = _training(
        0.0,
        "Decay of the moving average of the weights, which is then evaluated; less in the first "
        "steps; 0 keeps none.",
        ge=0,
        lt=1,
    )
    batchnorm: Literal["train", "frozen", "reestimate"] = _tuning(
        "train",
        "Statistics of the network's BatchNorm layers; frozen keeps those of the initial weights, "
        "reestimate measures them anew at the end.",
    )
    precision: Literal["auto", "fp32", "bf16", "fp16"] = _hardware(
        "auto",
        "Floating-point precision; auto is bf16 where the device has instructions for it and its "
        "gradients are right, else fp32.",
    )
    channels_last: bool | None = _hardware(
        None,
        "Channels-last memory format, in which convolutions are faster.",
        unset="for convolutional networks",
    )
    compile: bool = _hardware(False, "torch.compile; pays off in long runs on a GPU.")
    log_every_steps: int = _output(
        20, "Optimizer steps between logged metrics; the first and the last are logged, too.", ge=1
    )
    save_every_steps: int = _output(
        0, "Optimizer steps between checkpoints; 0 saves after each epoch.", ge=0
    )
    val_every_epochs: int = _output(1, "Epochs between evaluations on the validation images.", ge=1)
