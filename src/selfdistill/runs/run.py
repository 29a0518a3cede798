"""A run that was trained, and what can be done with it."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import nn

from ..core import STUDENT, ConfigError, Method
from ..data import ImageData
from ..early_exit.network import EarlyExitNetwork
from ..early_exit.thresholds import Threshold
from ..engine import checkpoint
from ..engine.run_directory import RunDirectory
from ..engine.state import restore_method
from ..evaluation import EvaluationSession
from ..export.int8_options import Int8Options
from ..export.package import ExportResult, task_for
from ..information.config import EstimatorConfig, NetworkUnderTest
from ..information.estimation import estimate_information
from ..information.results import InformationResult
from ..modules.composite import composite_description, student_taps
from ..recipe.build_run import RunInput, build_run, load_run_data
from ..recipe.data_check import as_trained
from ..recipe.placeholder_teacher import placeholder_teacher
from ..recipe.run_origin import checked_training_data
from ..recipe.schema import Recipe
from ..recipe.teachers import check_given_modules
from ..records.exit_measurements import ExitMeasurements
from ..records.exit_scores import ExitScore, read_exit_scores, score_summary
from .anytime import early_exit_network
from .baseline import check_comparable, matched_baseline
from .evaluate import Evaluation, evaluate_run
from .export import export_trained
from .measure_exits import check_measurable, measure_exits, save_measurements
from .paths import load_recipe
from .pictures import Pictures
from .predict_pictures import MIN_SCORE, TOP, predict_pictures
from .predictions import Predictions
from .predictor import predictor_of_run


@dataclass(repr=False)
class Run:
    """What a training run left behind; `load` makes one of a directory.

    Attributes:
        path: its directory.
        recipe: everything that made it.
        method: trained, on its device, in evaluation mode.
        exits: score and cost of every predictor, shallowest first.
        data: that it was trained on.
        state: of the training, as the checkpoint has it that the method is from.
    """

    path: Path
    recipe: Recipe
    method: Method
    exits: list[ExitScore]
    data: ImageData
    state: dict[str, Any]

    def __repr__(self) -> str:
        names = f"{self.recipe.method} · {self.recipe.model} · {self.recipe.data}"
        deployed = composite_description(self.method)
        lines = [f"Run {self.path}", names, deployed, score_summary(self.exits)]
        return "\n  ".join(line for line in lines if line)

    @property
    def unfinished(self) -> str:
        """That the run did not come to its end, a clause, or ""."""
        if self.state["finished"] and self.exits:
            return ""
        return (
            f"the weights are those of step {self.state['step']}, after {self.state['epoch']} of "
            f"{self.recipe.epochs} epochs; selfdistill train --resume {self.path} goes on"
        )

    @property
    def network(self) -> nn.Module:
        """The trained student, as it was given, or the `CompositeNetwork` that its method made."""
        return self.method.predictors()["student"]

    def session(
        self, *, device: str | None = None, precision: str | None = None
    ) -> EvaluationSession:
        """The run's method with its task, data and loaders, on a device of this machine."""
        where = {"device": device, "precision": precision}
        return EvaluationSession.local(self.recipe, self.data, self.method, **where)

    def evaluate(
        self,
        split: str | None = None,
        *,
        data: str | ImageData | None = None,
        device: str | None = None,
    ) -> Evaluation:
        """Score every exit on held-out images.

        Args:
            split: "val" or "test"; None is the test images, if there are any.
            data: other data with the same classes, which are normalized as the run's were; all of
                them, if none are held out.
            device: None is the recipe's.

        Raises:
            ConfigError: there is no such split.
            DataError: the data have none of these images, other classes or other channels.
        """
        return evaluate_run(self.session(device=device), split, data)

    def predict(
        self,
        pictures: Pictures,
        *,
        exit: str | int = STUDENT,
        top: int = TOP,
        min_score: float = MIN_SCORE,
        device: str | None = None,
    ) -> Predictions:
        """Predict classes, masks or boxes of pictures, which are prepared as in training.

        Args:
            pictures, exit, top, min_score, device: as `selfdistill.predict` has them.
        """
        predictor = predictor_of_run(self, exit, device)
        return predict_pictures(predictor, pictures, top=top, min_score=min_score)

    def measure_exits(
        self,
        *,
        baseline: str | Path | None = None,
        count: str = "actual",
        batch_sizes: Sequence[int] = (1, 32),
        num_threads: int | None = None,
        device: str | None = None,
        on_message: Callable[[str], None] = lambda message: None,
    ) -> ExitMeasurements:
        """Score, calibration, cost, latency and file size of every exit, beside a baseline's.

        The table `exits-measured.csv`, its picture and the report are written into the directory.

        Args:
            baseline: directory of the run to compare with; None takes a finished one beside this
                that differs in the method alone, if there is one.
            count: of parameters and multiply-adds: "actual", of what runs, or "paper", as MUSE's
                Table 3 counts convolutions.
            batch_sizes: images of a timed forward pass.
            num_threads: of the CPU, for timing; None takes as many as torch does.
            device: where to evaluate, and to time beside the CPU; None is the recipe's.
            on_message: is told what is being done.

        Raises:
            ConfigError: the baseline cannot be compared with this run.
            RunBusyError: the run is being trained.
        """
        check_measurable(self.path, count)
        path = Path(baseline) if baseline else matched_baseline(self.path)
        notes = check_comparable(self.path, self.recipe, path) if path else []
        measurements = measure_exits(
            self,
            load(path, data=self.data) if path else None,
            count=count,
            batch_sizes=batch_sizes,
            num_threads=num_threads,
            device=device,
            notes=notes,
            on_message=on_message,
        )
        save_measurements(self.path, measurements)
        return measurements

    def export(
        self,
        *,
        exit: str | int = "auto",
        format: str = "onnx",
        out: str | Path | None = None,
        min_accuracy: float | None = None,
        max_macs: float | None = None,
        image_size: int | None = None,
        fuse: bool = True,
        int8: Int8Options | None = None,
        data: ImageData | None = None,
    ) -> ExportResult:
        """Write an exit or the student by itself, verified, with a model card.

        Args:
            exit, min_accuracy, max_macs: which predictor, see `export.select_exit`.
            format: one of `export.formats.format_names`: ``"onnx"``, ``"pt2"`` …
            out: the folder to make; None is export/PREDICTOR-FORMAT[-SIZE] in the run's directory.
            image_size: side of the file's images; None is the run's. At another all is evaluated.
            fuse: whether to fuse BatchNorm into the convolutions of a file that holds the graph.
            int8: what a file in int8 may lose and how it is timed.
            data: the run's own at the size of the file, if they were given as an object.

        Raises:
            SelfdistillError: see `export.package.export_run`.

        Examples:
            >>> run.export(exit="auto", min_accuracy=0.95).path  # doctest: +SKIP
        """
        return export_trained(
            self,
            exit=exit,
            format=format,
            out=out,
            min_accuracy=min_accuracy,
            max_macs=max_macs,
            image_size=image_size,
            fuse=fuse,
            int8=int8,
            data=data,
        )

    def anytime(
        self, threshold: Threshold | Iterable[Threshold] = None, *, max_loss: float = 0.01
    ) -> EarlyExitNetwork:
        """The network with its exits, computing each image only until an exit is confident.

        Args:
            threshold: the class probability from which on an image leaves, in (0, 1]: one for all
                exits, or one each, None to leave an exit out. Without any, thresholds are chosen on
                the validation images: those of least mean multiply-adds.
            max_loss: how much lower than the student's the accuracy on the validation images may
                then be; 0.01 is one percentage point.

        Returns:
            A module of its own on the run's device: normalized images in, logits and exits out.

        Raises:
            ConfigError: images have no class of their own, there are no exits, the network cannot
                be split at them, or a threshold is no probability.
            DataError: thresholds are to be chosen, and there are no validation images.

        Examples:
            >>> network = run.anytime(threshold=0.9)  # doctest: +SKIP
            >>> logits, exits = network(images)  # doctest: +SKIP
        """
        num_workers = self.recipe.num_workers
        return early_exit_network(
            self.method, self.data, threshold, max_loss=max_loss, num_workers=num_workers
        )

    def information(self, **config: Any) -> InformationResult:
        """Mutual information of every stage with the last one, and its self-information.

        Args:
            config: keywords of `information.config.EstimatorConfig`, such as steps and seeds.
        """
        taps = student_taps(self.method, self.recipe.taps)
        network = NetworkUnderTest(self.network, taps, self.data.mean, self.data.std)
        return estimate_information({self.path.name: network}, self.data, EstimatorConfig(**config))

    def report(self) -> Path:
        """Write `report.html` anew, from the files in the directory."""
        from ..reporting.run_page import write_report  # imports matplotlib, if it is installed

        return write_report(RunDirectory(self.path))


def load(
    path: str | Path,
    *,
    data: ImageData | None = None,
    model: nn.Module | None = None,
    teacher: nn.Module | None = None,
    peers: Sequence[nn.Module] = (),
) -> Run:
    """A run from its directory, with the weights of its newest checkpoint.

    Args:
        path: the run's directory.
        data, model, peers: the objects that the run was made with, if they were no names.
        teacher: goes into the method, to train it further. Without one the method has a placeholder
            of the same shapes: a trained run has no use for its teacher.

    Raises:
        ConfigError: there is no run, nothing was saved yet, its recipe was changed, or an object is
            missing.
        DataError: its data have other classes now.
        ArtifactError: its checkpoints are corrupt or of a newer version.
    """
    recipe, directory = load_recipe(path), RunDirectory(Path(path))
    newest = checkpoint.newest(directory.checkpoints)
    if newest is None:
        raise ConfigError(f"{path} has no checkpoint yet")
    trained_on = checked_training_data(directory, newest)
    check_given_modules(recipe, model, peers, teacher, data)
    data = as_trained(directory.path, trained_on, data or load_run_data(recipe))
    chosen = recipe
    if teacher is None and recipe.teacher:
        teacher = placeholder_teacher(directory.path, task_for(data))
        chosen = recipe.model_copy(update={"teacher_taps": "auto"})
    components = build_run(chosen, RunInput(data), model=model, teacher=teacher, peers=peers)
    restore_method(components.method, newest, ema=True)
    exits = read_exit_scores(directory.path) if newest.state["finished"] else []
    return Run(directory.path, recipe, components.method.eval(), exits, data, newest.state)
