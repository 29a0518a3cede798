"""`selfdistill train`."""

from pathlib import Path
from typing import Annotated, Any

import typer

from .choosing import chosen_recipe, own_recipe
from .running import run
from .screen import rank_zero

_WHAT, _HOW, _WHERE = "What", "How", "Where"


def _option(panel: str, meaning: str, default: str = "", *names: str, **more: Any) -> Any:
    """An option of a panel; the default is said in words, since to the command it is None."""
    text = f"{meaning} ({default})" if default else meaning
    return typer.Option(*names, help=text, rich_help_panel=panel, **more)


# None means "what the recipe says": only what was given is passed on, so that a recipe file keeps
# its say. The defaults shown are those of recipe/schema.py, which a test compares.
def train(
    method: Annotated[
        str | None, _option(_WHAT, "How to train; selfdistill methods lists them.", "muse")
    ] = None,
    model: Annotated[
        str | None,
        _option(_WHAT, "The network; selfdistill models lists them.", "cifar/resnet10_w16"),
    ] = None,
    data: Annotated[
        str | None, _option(_WHAT, "A data set's name, folder:PATH or npz:FILE.", "digits")
    ] = None,
    recipe: Annotated[Path | None, _option(_WHAT, "Start from this TOML file.")] = None,
    weights: Annotated[
        str | None, _option(_WHAT, "Start from 'pretrained' or a weights file.")
    ] = None,
    taps: Annotated[
        str | None, _option(_WHAT, "Where to read features; see selfdistill taps.", "auto")
    ] = None,
    teacher: Annotated[
        str | None,
        _option(_WHAT, "For offline methods: a run, a weights file or timm/NAME."),
    ] = None,
    teacher_model: Annotated[
        str | None, _option(_WHAT, "The network of a teacher's weights file.")
    ] = None,
    teacher_taps: Annotated[
        str | None, _option(_WHAT, "Where to read the teacher's features.", "auto")
    ] = None,
    peers: Annotated[
        list[str] | None,
        _option(
            _WHAT,
            "For online methods: a network to train along; may be repeated.",
            "",
            "--peer",
            metavar="MODEL",
        ),
    ] = None,
    image_size: Annotated[
        int | None, _option(_WHAT, "Side of the images in pixels.", "the data's own")
    ] = None,
    val: Annotated[
        float | None, _option(_WHAT, "Share of the training images to validate by.", "0.1")
    ] = None,
    limit: Annotated[int | None, _option(_WHAT, "Most training images to use.", "all")] = None,
    settings: Annotated[
        list[str] | None,
        _option(
            _WHAT,
            "A recipe's key or an option of the method; may be repeated.",
            "",
            "--set",
            metavar="KEY=VALUE",
        ),
    ] = None,
    epochs: Annotated[int | None, _option(_HOW, "Passes over the training images.", "30")] = None,
    batch_size: Annotated[int | None, _option(_HOW, "Images an optimiser step.", "64")] = None,
    optimiser: Annotated[str | None, _option(_HOW, "sgd or adamw.", "sgd")] = None,
    lr: Annotated[float | None, _option(_HOW, "The highest learning rate.", "0.05")] = None,
    schedule: Annotated[str | None, _option(_HOW, "cosine, step or constant.", "cosine")] = None,
    warmup: Annotated[float | None, _option(_HOW, "Epochs of linear warm-up.", "0.0")] = None,
    weight_decay: Annotated[float | None, _option(_HOW, "On all weights.", "0.0005")] = None,
    seed: Annotated[int | None, _option(_HOW, "Of weights, order and augmentation.", "0")] = None,
    out: Annotated[
        Path | None, _option(_WHERE, "The run's directory.", "the next free one in runs/")
    ] = None,
    resume: Annotated[
        Path | None, _option(_WHERE, "Go on with this run, by its own recipe.", metavar="RUN")
    ] = None,
    device: Annotated[str | None, _option(_WHERE, "auto, cpu, cuda or mps.", "auto")] = None,
    devices: Annotated[int | None, _option(_WHERE, "Processes on each machine.", "1")] = None,
    precision: Annotated[str | None, _option(_WHERE, "fp32, bf16 or fp16.", "fp32")] = None,
    channels_last: Annotated[
        bool | None, _option(_WHERE, "Memory format; fast with bf16.", "", "--channels-last")
    ] = None,
    compile: Annotated[
        bool | None, _option(_WHERE, "torch.compile; for long runs on a GPU.", "", "--compile")
    ] = None,
    workers: Annotated[
        int | None, _option(_WHERE, "Loading processes, for streamed data.", "2")
    ] = None,
    save_every: Annotated[
        int | None, _option(_WHERE, "Steps between checkpoints; 0 is each epoch.", "0")
    ] = None,
) -> None:
    """Train a network: with no options MUSE on handwritten digits."""
    given = {key: value for key, value in locals().items() if value not in (None, [])}
    if resume:
        run(own_recipe(given), resume, resume=True)
        return
    chosen = chosen_recipe(given)
    from ..api import next_free
    from ..engine.run_directory import RunDirectory

    place = given.get("out") or next_free(chosen)
    if rank_zero():
        RunDirectory(place).check_free()  # before the data are loaded
    run(chosen, place, resume=False)
