"""A run evaluated again, on its own data or on other data with the same classes."""

from dataclasses import dataclass, replace

from ..core import ConfigError, DataError
from ..data import ImageData
from ..evaluation import EvaluationSession
from ..recipe.data_check import class_difference, in_channels
from ..records import SPLITS
from ..records.exit_scores import ExitScore
from .data_to_score import all_to_score, load_to_score


@dataclass(frozen=True)
class Evaluation:
    """Scores of every predictor on one part of some data.

    Attributes:
        data: the name of the data.
        split: "val" or "test".
        num_images: of that part.
        exits: score and cost of every predictor, shallowest first.
        conversion: what was done to the channels of the images, a phrase, or "".
    """

    data: str
    split: str
    num_images: int
    exits: list[ExitScore]
    conversion: str = ""


def evaluate_run(
    session: EvaluationSession, split: str | None = None, data: str | ImageData | None = None
) -> Evaluation:
    """Score every exit on a held-out part; see `Run.evaluate`."""
    if split not in (None, *SPLITS):
        raise ConfigError(f"the split is val or test, not '{split}'")
    if data is not None:
        session = replace(session, data=_other_data(session, data))
    wanted = [split] if split else list(reversed(SPLITS))
    available = [name for name in wanted if name in session.splits]
    if not available:
        raise DataError(f"'{session.data.name}' has no {' and no '.join(wanted)} part")
    images = session.splits[available[0]]
    exits = session.score_exits(available[0])
    conversion = session.data.conversion
    return Evaluation(session.data.name, available[0], len(images), exits, conversion)


def _named_as(own: ImageData, data: ImageData) -> ImageData:
    """The data with the names of the run's classes, where one of the two has only numbers."""
    numbers = [str(i) for i in range(len(own.classes))]
    unnamed = numbers in (list(own.classes), list(data.classes))
    fits = unnamed and len(data.classes) == len(numbers)
    return replace(data, classes=own.classes) if fits else data


def _other_data(session: EvaluationSession, data: str | ImageData) -> ImageData:
    """Other data, in the size, channels and normalization that the run was trained with."""
    own = session.data
    if session.task.embeddings:
        raise ConfigError(
            "the run is scored by what its teacher gave for its own held-out images, and of other "
            f"data that is not known; train with --data {data} and the same teacher"
            if isinstance(data, str)
            else "the run is scored by what its teacher gave for its own held-out images, and of "
            "other data that is not known; train with these and the same teacher"
        )
    channels, *_, height, width = own.train.shape
    if isinstance(data, str):
        data = load_to_score(session.recipe, data, (height, width))
    data = all_to_score(data)
    if difference := class_difference(own, _named_as(own, data)):
        raise DataError(f"the run {difference}; give data with the same classes in the same order")
    data = in_channels(data, channels)
    if data.train.shape[0] != channels:
        raise DataError(
            f"the images of '{data.name}' have {data.train.shape[0]} channels and the run was "
            f"trained on {channels}; convert them"
        )
    return replace(data, classes=own.classes).normalized_by(own.mean, own.std, own.normalization)
