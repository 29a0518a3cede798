"""Training a run: from a recipe to what it leaves behind."""

from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from torch import nn

from ..core import ConfigError, load_tensors
from ..core.memory_format import module_to_contiguous
from ..data import ImageData
from ..engine.callback import Callback, Callbacks
from ..engine.fine_tuning import FineTuning
from ..engine.optimizer import build_optimizer
from ..engine.processes import lost_processes_reported
from ..engine.protocols import Batches
from ..engine.quiet_lightning import quiet_lightning
from ..engine.run_directory import RunDirectory
from ..engine.trainer import Trainer
from ..evaluation import EvaluationSession
from ..recipe.build_run import (
    RunInput,
    build_run,
    load_run_data,
    run_input,
    with_extra,
)
from ..recipe.data_check import as_trained
from ..recipe.launched_processes import with_launched_processes
from ..recipe.loaders import train_loader
from ..recipe.machine_choices import check_precision
from ..recipe.make_fabric import decide_precision, make_fabric
from ..recipe.merge import merge_keys
from ..recipe.presets import with_preset
from ..recipe.run_origin import RunOrigin, read_origin
from ..recipe.schema import Recipe, parse, read
from ..recipe.teacher_cache import with_teacher_cache
from ..recipe.teachers import check_given_modules
from ..records.exit_scores import FILE as EXITS_FILE
from ..records.exit_scores import ExitScore, read_exit_scores
from ..records.training_data import read_training_data
from ..signals import STOP_SIGNALS, handled, raise_interrupted
from ..tasks import TASKS
from ..tracking import left_by_tracker
from .arguments import training_arguments
from .begin import announce, begin, check_split, split_teacher, tracker_of
from .extension import check_extension, check_same_keys, extended
from .finalize import finalize
from .held_out import with_teacher_embeddings
from .paths import first_difference, load_recipe, unique_run_dir
from .progress import TerminalProgress
from .run import Run
from .summary import describe_average
from .terminal import rank_zero


def train(
    *,
    model: str | nn.Module | None = None,
    data: str | ImageData | None = None,
    teacher: str | Path | nn.Module | None = None,
    peers: str | nn.Module | Sequence[str | nn.Module] = (),
    out: str | Path | None = None,
    resume: bool | str | Path = False,
    recipe: str | Path | None = None,
    callback: Callback | Sequence[Callback] | None = None,
    quiet: bool = False,
    **keys: Any,
) -> Run:
    """Train a network.

    Args:
        model: a name (`selfdistill models`) or any module, which is trained in place; None is the
            recipe's.
        data: a name, ``folder:PATH``, ``npz:PATH`` or an `ImageData`; None is the recipe's.
        teacher: for offline methods: a run's directory, a weights file, ``timm/NAME`` or a module.
        peers: for online methods: names or modules, all of them one or the other; none is one more
            network like the student.
        out: the run's directory; None takes the next free one in runs/.
        resume: continue the run in `out`, or in the directory that is given here, by its own
            recipe; of the rest only what was given as an object (`model`, `data`, `teacher`,
            `peers`) need be given again. A larger `epochs` extends the run.
        recipe: a TOML file to start from.
        callback: one or several, called as training goes on; None prints a line an epoch, and on
            a terminal a progress bar.
        quiet: print nothing.
        keys: any key of a recipe, and the method's own options by their names.

    Returns:
        The run, evaluated on validation and test images.

    Examples:
        >>> run = train(method="muse", data="digits", epochs=20)  # doctest: +SKIP
        >>> run.exits[0].test_score, run.network  # doctest: +SKIP
    """
    if not isinstance(resume, bool):
        if out is not None and Path(out) != Path(resume):
            raise ConfigError(f"resume={resume} names a run, and out={out} another; leave out out")
        out, resume = resume, True
    given = training_arguments(keys, model, data, teacher, peers)
    file = read(Path(recipe)) if recipe else {}
    epochs: int | None = None
    if resume:
        chosen = load_recipe(out)
        epochs = given.keys.get("epochs")
        check_same_keys(chosen, merge_keys(file, given.keys))
    else:
        chosen = parse(with_preset(file, given.keys))
    with ExitStack() as stack:
        if callback is not None:
            callback = Callbacks(callback if isinstance(callback, Sequence) else [callback])
        if callback is None and not quiet and rank_zero():
            metric = TASKS[chosen.task].primary_metric
            callback = stack.enter_context(TerminalProgress(epochs or chosen.epochs, metric))
        return train_recipe(
            chosen, out=out, resume=resume, epochs=epochs, callback=callback, **given.objects()
        )


def train_recipe(
    recipe: Recipe,
    *,
    out: str | Path | None = None,
    resume: bool = False,
    epochs: int | None = None,
    callback: Callback | None = None,
    data: ImageData | None = None,
    model: nn.Module | None = None,
    teacher: nn.Module | None = None,
    peers: Sequence[nn.Module] = (),
) -> Run:
    """Train what a recipe says; `train` is the comfortable way in.

    With `resume` the recipe is the run's own, which a larger number of `epochs` extends.
    """
    before = recipe.epochs
    if resume:
        before, recipe = _resumed_recipe(out, epochs, model, peers)
    recipe = with_launched_processes(recipe, resume=resume)
    fabric = make_fabric(recipe)
    with quiet_lightning():
        fabric.launch()
    callback = callback if callback and fabric.is_global_zero else Callback()
    with lost_processes_reported(fabric), ExitStack() as stack:
        directory = RunDirectory(Path(fabric.broadcast(str(out or unique_run_dir(recipe)))))
        if resume:
            given = _resumed_input(recipe, directory, data)
        else:
            directory.check_free(*left_by_tracker(recipe.track))  # before a lock is left there
        tracker = tracker_of(recipe, directory)
        fabric.barrier()  # nobody writes before everybody has looked
        if not resume:
            given = run_input(recipe, data=data, model=model)
        components = build_run(recipe, given, model=model, teacher=teacher, peers=peers)
        check_precision(recipe, components.method, components.task.example)
        recipe = components.recipe
        decide_precision(fabric, recipe)
        check_extension(recipe, before, components.method)
        # what cannot be optimized is refused before there is a directory
        build_optimizer(components.method, recipe, components.tuning)
        check_split(components)
        batches = train_loader(recipe, components.data, components.method, fabric)
        batches, note = with_teacher_cache(batches, components, fabric)
        extends = recipe.epochs > before
        begin(stack, components, fabric, directory, tracker, resume=resume, extends=extends)
        callback = Callbacks([callback, tracker]) if tracker and fabric.is_global_zero else callback
        announce(components, fabric, directory, callback, before, resume=resume)
        if note:
            callback.on_message(note)
        data = with_teacher_embeddings(components, fabric, directory)
        components = components._replace(data=data)
        session = EvaluationSession(recipe, components.data, components.method, fabric)
        origin = read_origin(directory, extended=epochs is not None)
        split_teacher(components, fabric, callback)
        trainer = _trainer(session, batches, directory, callback, origin, components.tuning)
        exits = _fit(trainer, session, directory, callback)
    state = trainer.state()
    return Run(directory.path, recipe, components.method.eval(), exits, components.data, state)


def _resumed_recipe(
    run_dir: str | Path | None,
    epochs: int | None,
    model: nn.Module | None,
    peers: Sequence[nn.Module],
) -> tuple[int, Recipe]:
    """The epochs that a run had, and its recipe, which more of them may extend."""
    recipe = load_recipe(run_dir)
    before, recipe = recipe.epochs, extended(recipe, epochs, run_dir)
    check_given_modules(recipe, model, peers)
    return before, recipe


def _resumed_input(recipe: Recipe, directory: RunDirectory, data: ImageData | None) -> RunInput:
    """The data of a run that goes on; its weights are those of a checkpoint."""
    trained_on = read_training_data(directory.path)
    data = with_extra(recipe, data or load_run_data(recipe))
    return RunInput(as_trained(directory.path, trained_on, data, exact=True))


def _trainer(
    session: EvaluationSession,
    batches: Batches,
    directory: RunDirectory,
    callback: Callback,
    origin: RunOrigin,
    tuning: FineTuning,
) -> Trainer:
    """The loop around the method of a session."""
    return Trainer(
        session.fabric,
        session.method,
        session.task,
        batches,
        session.loader("val") if session.data.val else None,
        session.recipe,
        directory,
        callback,
        origin,
        tuning,
    )


def _fit(
    trainer: Trainer, session: EvaluationSession, directory: RunDirectory, callback: Callback
) -> list[ExitScore]:
    """Train to the end, evaluate, and leave the weights that were evaluated."""
    try:
        trainer.run()
    finally:  # a run that is stopped leaves a user's own module, too
        module_to_contiguous(session.method)
    callback.on_message("evaluating the finished network")
    with trainer.ema_weights(), handled(raise_interrupted, *STOP_SIGNALS):  # all is saved
        exits = finalize(session, directory, trainer.total_steps, callback)
    if trainer.ema:
        load_tensors(session.method, trainer.ema.state, strict=False)
        callback.on_message(describe_average(directory, session.task))
    callback.on_finish()
    return exits


def load_or_train_exits(recipe: Recipe, run_dir: Path, **given: Any) -> list[ExitScore]:
    """The exits of the run in a directory: read if it is finished, else resumed or trained.

    `given` are `train_recipe`'s objects (`data`, `model`, `teacher`, `peers`, `callback`).

    Raises:
        ConfigError: the run there was made by another recipe.
    """
    begun = (run_dir / "recipe.toml").exists()
    if begun and (key := first_difference(recipe, load_recipe(run_dir))):
        raise ConfigError(f"{run_dir} holds a run with another {key}; name another directory")
    if not (run_dir / EXITS_FILE).exists():
        train_recipe(recipe, out=run_dir, resume=begun, **given)
    return read_exit_scores(run_dir)
