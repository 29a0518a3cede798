"""What all trackers share: which numbers are sent, once each, and a run that goes on."""

import json
import re
import warnings
from abc import abstractmethod
from collections.abc import Iterator, Mapping
from importlib import import_module
from types import TracebackType
from typing import Any, ClassVar, Self

from ..core import ArtifactError, SelfdistillError, read_regular, require
from ..engine.callback import Callback
from ..engine.run_directory import RunDirectory
from ..errors import ConfigError

STATE_FILE = "tracker.json"
_SEED = re.compile(r"s\d+")  # as a comparison calls the directories of a row
_KINDS = ("step", "epoch", "final")  # lines of one step, in the order in which they are written


def left_by_tracker(name: str) -> tuple[str, ...]:
    """What a tracker may leave in the directory of a run that then did not begin."""
    return STATE_FILE, name  # folders of files are called as their trackers are


class Tracker(Callback):
    """Sends every line of metrics.jsonl to a tracker, once, however often the run is resumed.

    The run's directory keeps the tracker's name for the run and the last line that was sent. A
    tracker that fails is told of once and left alone: no training ends by it.

    Args:
        directory: of the run.
        project: under which the tracker lists the run.
        settings: of the run, shown beside its curves.

    Attributes:
        package: that is imported; its name is the tracker's.
        name: of the run, that of its directory, with the row's before it in a comparison.
    """

    package: ClassVar[str]

    def __init__(self, directory: RunDirectory, project: str, settings: Mapping[str, Any]) -> None:
        self.directory, self.project, self.settings = directory, project, dict(settings)
        path = directory.path.resolve()
        self.name = f"{path.parent.name}-{path.name}" if _SEED.fullmatch(path.name) else path.name
        self.library: Any = require(self.package, extra=self.package, purpose="--track")
        self.identifier, self.sent = "", (0, -1)  # step and kind of the last line
        self.working = True

    @abstractmethod
    def begin(self, identifier: str) -> str:
        """Open the run, a new one where `identifier` is "", and return its name there."""

    @abstractmethod
    def send(self, numbers: dict[str, float], step: int) -> None:
        """Send the numbers of a step."""

    @abstractmethod
    def end(self, *, complete: bool) -> None:
        """Close the run; `complete` says whether the training came to its end."""

    def __enter__(self) -> Self:
        self._restore()
        try:
            self.identifier = self.begin(self.identifier)
        except SelfdistillError:
            raise
        except Exception as error:
            raise ConfigError(
                f"{self.package} could not begin a run ({_first_line(error)}); mend that, or train "
                "without --track"
            ) from error
        self._keep()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        fault: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        with _Guard(self):
            self.end(complete=fault is None)

    def on_log(self, entry: dict[str, Any], total_steps: int) -> None:
        """Send the numbers of a step."""
        self._send(entry)

    def on_epoch(self, entry: dict[str, Any]) -> None:
        """Send the means and the scores of an epoch."""
        self._send(entry)

    def on_result(self, entry: dict[str, Any]) -> None:
        """Send the final scores."""
        self._send(entry)

    def _send(self, entry: Mapping[str, Any]) -> None:
        position = entry["step"], _KINDS.index(entry["kind"])
        if position <= self.sent or not self.working:
            return
        with _Guard(self):
            self.send(tracked_numbers(entry), entry["step"])
            self.sent = position
            self._keep()

    def _keep(self) -> None:
        state = {"tracker": self.package, "identifier": self.identifier, "sent": self.sent}
        self.directory.write(STATE_FILE, json.dumps(state))

    def _restore(self) -> None:
        """Go on where the run's directory says that the same tracker was left."""
        path = self.directory.path / STATE_FILE
        if not path.exists():
            return
        try:
            state = json.loads(read_regular(path))
            if state["tracker"] == self.package:
                step, kind = state["sent"]
                self.identifier, self.sent = str(state["identifier"]), (int(step), int(kind))
        except (OSError, ValueError, TypeError, KeyError, OverflowError, RecursionError) as error:
            raise ArtifactError(
                f"{path} is damaged ({_first_line(error)}); delete it, and the tracker begins a "
                "new run"
            ) from error


class _Guard:
    """Context in which a tracker's fault ends the tracking and not the training."""

    def __init__(self, tracker: Tracker) -> None:
        self.tracker = tracker

    def __enter__(self) -> None:
        return None

    def __exit__(
        self, kind: type[BaseException] | None, fault: BaseException | None, trace: object
    ) -> bool:
        if not isinstance(fault, Exception):
            return False
        if self.tracker.working:
            self.tracker.working = False
            warnings.warn(
                f"{self.tracker.package} failed ({_first_line(fault)}), so the run goes on without "
                "it; metrics.jsonl has everything",
                stacklevel=3,
            )
        return True


def make_tracker(
    name: str, directory: RunDirectory, project: str, settings: Mapping[str, Any]
) -> Tracker:
    """The tracker of a name, `NAME_tracker.py` in this folder.

    Raises:
        MissingExtraError: its package is not installed.
    """
    module = import_module(f".{name}_tracker", __package__)
    tracker: type[Tracker] = module.TRACKER
    return tracker(directory, project, settings)


def tracked_numbers(entry: Mapping[str, Any]) -> dict[str, float]:
    """The numbers of a line of metrics.jsonl by the names that a tracker shows.

    Of a step `train/loss`, `train/losses/TERM`, `train/METRIC`, `train/monitor/NAME`, `train/lr`
    and the like; of an epoch `epoch/…` for the means, and `val/PREDICTOR/METRIC`; at the end
    `final/PART/PREDICTOR/METRIC`.
    """
    kind = entry["kind"]
    scope = {"step": "train", "epoch": "epoch", "final": "final"}[kind]
    rest = {k: v for k, v in entry.items() if k not in ("kind", "step", "losses", "monitors")}
    numbers: dict[str, float] = {}
    if losses := entry.get("losses"):
        numbers[f"{scope}/loss"] = sum(losses.values())
        if len(losses) > 1:
            numbers |= _flat(losses, f"{scope}/losses")
    numbers |= _flat(entry.get("monitors", {}), f"{scope}/monitor")
    numbers |= _flat(rest.pop("train", {}), "train")
    if kind == "epoch":
        numbers |= {"epoch/number": rest.pop("epoch") + 1} | _flat(rest.pop("val", {}), "val")
    return numbers | _flat(rest, scope)


def _flat(value: Any, name: str) -> dict[str, float]:
    return dict(_leaves(value, name))


def _leaves(value: Any, name: str) -> Iterator[tuple[str, float]]:
    if isinstance(value, Mapping):
        for key, inner in value.items():
            yield from _leaves(inner, f"{name}/{key}")
    elif isinstance(value, int | float):
        yield name, float(value)


def _first_line(error: BaseException) -> str:
    return next(iter(str(error).strip().splitlines()), type(error).__name__)
