"""`selfdistill train`."""

from pathlib import Path
from typing import Annotated

import typer

from . import options
from .choosing import chosen_recipe, own_recipe
from .running import run
from .screen import rank_zero


def train(
    method: options.Method = None,
    model: options.Model = None,
    task: options.Task = None,
    data: options.Data = None,
    recipe: options.RecipeFile = None,
    weights: options.Weights = None,
    taps: options.Taps = None,
    teacher: options.Teacher = None,
    teacher_model: options.TeacherModel = None,
    teacher_taps: options.TeacherTaps = None,
    peers: options.Peers = None,
    image_size: options.ImageSize = None,
    ignore: options.Ignore = None,
    val: options.Val = None,
    limit: options.Limit = None,
    settings: options.Settings = None,
    epochs: options.Epochs = None,
    batch_size: options.BatchSize = None,
    optimizer: options.Optimizer = None,
    lr: options.LearningRate = None,
    schedule: options.Schedule = None,
    warmup: options.Warmup = None,
    weight_decay: options.WeightDecay = None,
    seed: options.Seed = None,
    out: options.Out = None,
    resume: Annotated[
        Path | None,
        typer.Option(
            help="Go on with this run, by its own recipe.", rich_help_panel="Where", metavar="RUN"
        ),
    ] = None,
    device: options.Device = None,
    devices: options.Devices = None,
    precision: options.Precision = None,
    channels_last: options.ChannelsLast = None,
    compile: options.Compile = None,
    workers: options.Workers = None,
    save_every: options.SaveEvery = None,
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
