"""The options that make a recipe, shared by the commands that take them all.

None means "what the recipe says": only what was given is passed on, so that a recipe file keeps
its say. The defaults shown are those of recipe/schema.py, which a test compares.
"""

from pathlib import Path
from typing import Annotated, Any

import typer

_WHAT, _HOW, _WHERE = "What", "How", "Where"


def _option(panel: str, meaning: str, default: str = "", *names: str, **more: Any) -> Any:
    """An option of a panel; the default is said in words, since to the command it is None."""
    text = f"{meaning} ({default})" if default else meaning
    return typer.Option(*names, help=text, rich_help_panel=panel, **more)


Method = Annotated[
    str | None, _option(_WHAT, "How to train; selfdistill methods lists them.", "muse")
]
Model = Annotated[
    str | None, _option(_WHAT, "The network; selfdistill models lists them.", "cifar/resnet10_w16")
]
Task = Annotated[
    str | None,
    _option(
        _WHAT,
        "What the labels mean: classification, segmentation or detection.",
        "classification",
        metavar="TASK",
    ),
]
Data = Annotated[
    str | None, _option(_WHAT, "A data set's name, folder:PATH or npz:FILE.", "digits")
]
RecipeFile = Annotated[Path | None, _option(_WHAT, "Start from this TOML file.")]
Weights = Annotated[str | None, _option(_WHAT, "Start from 'pretrained' or a weights file.")]
Taps = Annotated[
    str | None, _option(_WHAT, "Where to read features; see selfdistill taps.", "auto")
]
Teacher = Annotated[
    str | None, _option(_WHAT, "For offline methods: a run, a weights file or timm/NAME.")
]
TeacherModel = Annotated[str | None, _option(_WHAT, "The network of a teacher's weights file.")]
TeacherTaps = Annotated[str | None, _option(_WHAT, "Where to read the teacher's features.", "auto")]
Peers = Annotated[
    list[str] | None,
    _option(
        _WHAT,
        "For online methods: a network to train along; may be repeated.",
        "",
        "--peer",
        metavar="MODEL",
    ),
]
ImageSize = Annotated[int | None, _option(_WHAT, "Side of the images in pixels.", "the data's own")]
Ignore = Annotated[
    int | None, _option(_WHAT, "Value of a mask that is no class, besides 255.", metavar="VALUE")
]
Val = Annotated[float | None, _option(_WHAT, "Share of the training images to validate by.", "0.1")]
Limit = Annotated[int | None, _option(_WHAT, "Most training images to use.", "all")]
Settings = Annotated[
    list[str] | None,
    _option(
        _WHAT,
        "A recipe's key or an option of the method; may be repeated.",
        "",
        "--set",
        metavar="KEY=VALUE",
    ),
]
Epochs = Annotated[int | None, _option(_HOW, "Passes over the training images.", "30")]
BatchSize = Annotated[int | None, _option(_HOW, "Images an optimizer step.", "64")]
Optimizer = Annotated[str | None, _option(_HOW, "sgd or adamw.", "sgd")]
LearningRate = Annotated[float | None, _option(_HOW, "The highest learning rate.", "0.05")]
Schedule = Annotated[str | None, _option(_HOW, "cosine, step or constant.", "cosine")]
Warmup = Annotated[float | None, _option(_HOW, "Epochs of linear warm-up.", "0.0")]
WeightDecay = Annotated[float | None, _option(_HOW, "On all weights.", "0.0005")]
Seed = Annotated[int | None, _option(_HOW, "Of weights, order and augmentation.", "0")]
Out = Annotated[Path | None, _option(_WHERE, "The run's directory.", "the next free one in runs/")]
Device = Annotated[str | None, _option(_WHERE, "auto, cpu, cuda or mps.", "auto")]
Devices = Annotated[int | None, _option(_WHERE, "Processes on each machine.", "1")]
Precision = Annotated[str | None, _option(_WHERE, "fp32, bf16 or fp16.", "fp32")]
ChannelsLast = Annotated[
    bool | None, _option(_WHERE, "Memory format; fast with bf16.", "", "--channels-last")
]
Compile = Annotated[
    bool | None, _option(_WHERE, "torch.compile; for long runs on a GPU.", "", "--compile")
]
Workers = Annotated[int | None, _option(_WHERE, "Loading processes, for streamed data.", "2")]
SaveEvery = Annotated[
    int | None, _option(_WHERE, "Steps between checkpoints; 0 is each epoch.", "0")
]
