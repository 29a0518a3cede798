"""MLflow: on the server that MLFLOW_TRACKING_URI names, else where MLflow keeps runs by itself."""

import time
from typing import Any

from .tracker import Tracker

_MAX_VALUE = 500  # characters of a parameter; servers refuse longer ones


class MlflowTracker(Tracker):
    """A run of MLflow, which a resume goes on with by its id."""

    package = "mlflow"

    def begin(self, identifier: str) -> str:
        """Open a run in the experiment that is called like the project, or go on with one."""
        self.client: Any = self.library.MlflowClient()
        if identifier:
            self.client.update_run(identifier, status="RUNNING")
            self.identifier = identifier
            return identifier
        experiment = self.client.get_experiment_by_name(self.project)
        number = (
            experiment.experiment_id if experiment else self.client.create_experiment(self.project)
        )
        run = self.client.create_run(number, run_name=self.name)
        self.identifier = str(run.info.run_id)
        entities = self.library.entities
        parameters = [
            entities.Param(name, str(value)[:_MAX_VALUE]) for name, value in self.settings.items()
        ]
        self.client.log_batch(self.identifier, params=parameters)
        return self.identifier

    def send(self, numbers: dict[str, float], step: int) -> None:
        """Write all numbers in one request."""
        metric, now = self.library.entities.Metric, round(time.time() * 1000)
        metrics = [metric(name, value, now, step) for name, value in numbers.items()]
        self.client.log_batch(self.identifier, metrics=metrics)

    def end(self, *, complete: bool) -> None:
        """Say how the run ended."""
        self.client.set_terminated(self.identifier, "FINISHED" if complete else "KILLED")


TRACKER = MlflowTracker
