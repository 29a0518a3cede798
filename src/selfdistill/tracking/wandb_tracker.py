"""Weights & Biases, online or, with WANDB_MODE=offline, in the run's own directory."""

from typing import Any

from .tracker import Tracker


class WandbTracker(Tracker):
    """A run of Weights & Biases, which a resume goes on with by its id.

    Its own counter of steps cannot go back, so the step is a number like others, and the axis of
    all curves.
    """

    package = "wandb"

    def begin(self, identifier: str) -> str:
        """Open a run, or go on with one."""
        self.run: Any = self.library.init(
            project=self.project,
            name=self.name,
            id=identifier or None,
            resume="allow",
            config=self.settings,
            dir=str(self.directory.path),
            settings=self.library.Settings(console="off"),
        )
        self.run.define_metric("step")
        self.run.define_metric("*", step_metric="step")
        return str(self.run.id)

    def send(self, numbers: dict[str, float], step: int) -> None:
        """Hand the numbers to the service that sends or keeps them."""
        self.run.log({**numbers, "step": step})

    def end(self, *, complete: bool) -> None:
        """Finish the run."""
        self.run.finish(exit_code=0 if complete else 1)


TRACKER = WandbTracker
