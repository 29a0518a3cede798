"""`selfdistill doctor`: diagnosis of a run before it starts."""

from . import options
from .resolve_recipe import resolve_recipe


def doctor(
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
    device: options.Device = None,
    devices: options.Devices = None,
    precision: options.Precision = None,
    channels_last: options.ChannelsLast = None,
    compile: options.Compile = None,
    workers: options.Workers = None,
    save_every: options.SaveEvery = None,
) -> None:
    """Examine a run before it starts: data, network, teacher, loss terms, time and memory.

    Takes the options of selfdistill train, trains for a few steps and throws them away. Nothing is
    written. It exits as the training would if that could not start, and with 0 otherwise.
    """
    given = {key: value for key, value in locals().items() if value not in (None, [])}
    from ..diagnosis import diagnose
    from .console import quiet_lightning
    from .doctor_output import DiagnosisScreen, show_conclusion

    with quiet_lightning():
        report = diagnose(resolve_recipe(given), out=out, callback=DiagnosisScreen())
    show_conclusion(report)
