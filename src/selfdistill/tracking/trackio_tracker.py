"""Trackio: on this machine, or where TRACKIO_SPACE_ID or TRACKIO_SERVER_URL says."""

from typing import Any
from uuid import uuid4

from .tracker import Tracker


class TrackioTracker(Tracker):
    """A run of Trackio, which a resume goes on with by its name."""

    package = "trackio"

    def begin(self, identifier: str) -> str:
        """Open a run, or go on with one; names of new ones differ, whatever their directories."""
        name = identifier or f"{self.name}-{uuid4().hex[:6]}"
        self.run: Any = self.library.init(
            self.project,
            name=name,
            config=self.settings,
            resume="allow",
            embed=False,
            auto_log_gpu=False,
            auto_log_cpu=False,
        )
        return name

    def send(self, numbers: dict[str, float], step: int) -> None:
        """Hand the numbers to the thread that writes them."""
        self.run.log(numbers, step=step)

    def end(self, *, complete: bool) -> None:
        """Wait until all is written."""
        self.run.finish()


TRACKER = TrackioTracker
