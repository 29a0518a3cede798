"""TensorBoard: event files in the run's own directory."""

import json
from typing import Any

from .tracker import Tracker


class TensorBoardTracker(Tracker):
    """`tensorboard --logdir RUNS` shows the runs below a folder, each by its directory."""

    package = "tensorboard"

    def begin(self, identifier: str) -> str:
        """Open an event file; one that goes on is written behind the older ones."""
        from torch.utils.tensorboard import SummaryWriter

        folder = self.directory.path / "tensorboard"
        self.writer: Any = SummaryWriter(folder)
        if not identifier:
            text = json.dumps(self.settings, indent=1)
            self.writer.add_text("recipe", f"```\n{text}\n```")
        return folder.name

    def send(self, numbers: dict[str, float], step: int) -> None:
        """Write the numbers to the disk: a killed run loses none of them."""
        for name, value in numbers.items():
            self.writer.add_scalar(name, value, step)
        self.writer.flush()

    def end(self, *, complete: bool) -> None:
        """Close the event file."""
        self.writer.close()


TRACKER = TensorBoardTracker
