"""The start of a run: its tracker, its directory, and what is said of it."""

import warnings
from contextlib import ExitStack

from lightning_fabric import Fabric

from ..core import SelfdistillError
from ..data import warn_of_data
from ..engine.callback import Callback
from ..engine.optimizer import schedule_notes
from ..engine.run_directory import RunDirectory
from ..recipe.build_run import RunComponents
from ..recipe.data_check import describe_data
from ..recipe.schema import Recipe, write
from ..recipe.unread_keys import unread_notes
from ..records.exit_measurements import FILE as MEASUREMENTS_FILE
from ..records.exit_scores import FILE as EXITS_FILE
from ..records.training_data import DATA_FILE
from ..tracking import Tracker, make_tracker
from .extension import describe_extension, machine_difference
from .summary import run_summary
from .teacher_check import check_teacher


def tracker_of(recipe: Recipe, directory: RunDirectory) -> Tracker | None:
    """The tracker that a recipe names, not yet open.

    Raises:
        MissingExtraError: its package is not installed.
    """
    if recipe.track == "off":
        return None
    settings = {k: v for k, v in recipe.model_dump().items() if k != "options"}
    settings |= {f"options/{name}": value for name, value in recipe.options.items()}
    return make_tracker(recipe.track, directory, recipe.track_project, settings)


def begin(
    stack: ExitStack,
    components: RunComponents,
    fabric: Fabric,
    directory: RunDirectory,
    tracker: Tracker | None,
    *,
    resume: bool,
    extends: bool,
) -> None:
    """Hold directory and tracker until the stack is left.

    What keeps the first process from it stops all.
    """
    fault: SelfdistillError | None = None
    if fabric.is_global_zero:
        try:
            stack.enter_context(directory.held())
            if tracker:
                stack.enter_context(tracker)
            recipe = write(components.recipe)
            if not resume:
                data = describe_data(components.data).to_json()
                directory.begin(recipe, {DATA_FILE: data})
            elif extends:
                directory.extend(recipe, [EXITS_FILE, MEASUREMENTS_FILE])
        except SelfdistillError as error:
            fault = error
    if fault := fabric.broadcast(fault):  # the others would wait for the first for ever
        raise fault


def announce(
    components: RunComponents,
    fabric: Fabric,
    directory: RunDirectory,
    callback: Callback,
    before: int,
    *,
    resume: bool,
) -> None:
    """Say what is trained, on what, and with which teacher; `before` are the epochs so far."""
    callback.on_start(run_summary(components, fabric, directory))
    warn_of_data(components.data)
    unread = [] if resume else unread_notes(components.recipe)
    for note in (*schedule_notes(components.recipe), *unread):
        warnings.warn(note, stacklevel=2)
    if components.recipe.epochs > before:
        callback.on_message(describe_extension(components.recipe, before))
    if resume and (change := machine_difference(directory)):
        callback.on_message(change)
    check_teacher(components, fabric, directory, callback)


def check_split(components: RunComponents) -> None:
    """Raise `ConfigError` if a teacher is to be split that cannot be."""
    if components.recipe.shard_teacher:
        from ..engine.sharding import check_shardable  # slow to import

        check_shardable(components.method)


def split_teacher(components: RunComponents, fabric: Fabric, callback: Callback) -> None:
    """Let each process hold a part of the teacher's weights where that is asked for, and say so."""
    if not components.recipe.shard_teacher:
        return
    from ..engine.sharding import shard_frozen  # slow to import

    split = shard_frozen(fabric, components.method)
    callback.on_message(
        f"{split:,} weights of the teacher are split among {fabric.world_size} processes"
        if split
        else "no teacher is split among processes: there is one process, or no teacher"
    )
