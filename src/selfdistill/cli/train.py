"""`selfdistill train`."""

from pathlib import Path
from typing import Annotated

import typer

from . import options
from .console import rank_zero
from .resolve_recipe import recipe_for_resume, resolve_recipe
from .run_output import train_and_report


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
        train_and_report(recipe_for_resume(given), resume, resume=True)
        return
    chosen = resolve_recipe(given)
    from ..engine.run_directory import RunDirectory
    from ..runs.paths import unique_run_dir

    place = given.get("out") or unique_run_dir(chosen)
    if rank_zero():
        RunDirectory(place).check_free()  # before the data are loaded
    train_and_report(chosen, place, resume=False)
