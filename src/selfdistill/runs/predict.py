"""Prediction by a run's directory, a loaded run, or an exported file."""

from pathlib import Path
from typing import Any

from ..core import STUDENT, ConfigError
from ..export.formats import network_file
from .paths import load_recipe
from .pictures import Pictures, given_pictures
from .predict_pictures import MIN_SCORE, TOP, predict_pictures
from .predictions import Predictions
from .predictor import Predictor, predictor_of_file, predictor_of_run
from .run import Run
from .save_predictions import check_free, save_predictions
from .without_images import load_without_images


def predict(
    source: Run | str | Path,
    pictures: Pictures,
    *,
    exit: str | int | None = None,
    top: int = TOP,
    min_score: float = MIN_SCORE,
    device: str | None = None,
    save: str | Path | None = None,
    **objects: Any,
) -> Predictions:
    """Predict classes, masks or boxes of pictures, which are prepared as in training.

    The data of a run need not be there. A picture that cannot be read is passed over and named in
    the result's `unreadable`. A network of clips gets the central clip of each video.

    Args:
        source: a run or its directory, or a file with a graph that `selfdistill export` wrote, or
            its folder.
        pictures: files and folders; of a folder all pictures, at any depth. Or pictures in memory:
            of Pillow, arrays (H, W, C) or tensors (C, H, W) of uint8. For a network of clips video
            files, folders of frames, and folders that hold such.
        exit: the number of a run's exit, a predictor's name, or ``"auto"``; None is the student.
        top: number of classes of a classified picture.
        min_score: lowest score of a detector's box.
        device: of a run; None is the recipe's.
        save: folder to make, with the predictions as CSV, drawings and masks.
        objects: `model` and `peers` of a run that was made with modules, see `load`.

    Raises:
        SelfdistillError: see `load`, `predictor_of_run`, `predictor_of_file`, `predict_pictures`
            and `save_predictions`.

    Examples:
        >>> predictions = predict("runs/digits-muse", "pictures/")  # doctest: +SKIP
        >>> predictions[0].classes[0].name  # doctest: +SKIP
    """
    if save is not None:
        check_free(save)
    given = given_pictures(pictures)  # before a network is loaded; an iterator is read once
    predictor = load_predictor(source, exit, device, **objects)
    predictions = predict_pictures(predictor, given, top=top, min_score=min_score)
    if save is not None:
        save_predictions(predictions, save)
    return predictions


def load_predictor(
    source: Run | str | Path,
    exit: str | int | None = None,
    device: str | None = None,
    **objects: Any,
) -> Predictor:
    """The network that `predict` runs."""
    if isinstance(source, Run):
        return predictor_of_run(source, STUDENT if exit is None else exit, device)
    path = Path(source)
    if not path.exists():
        raise ConfigError(f"there is no run and no exported network {path}")
    file = network_file(path) if path.is_dir() else path
    if file is None:
        load_recipe(path)  # raises where there is no run
        return load_predictor(load_without_images(path, **objects), exit, device)
    if exit is not None or device is not None:
        raise ConfigError(
            f"{file} holds one network, which runs on the CPU; exit and device are for runs"
        )
    return predictor_of_file(file)
