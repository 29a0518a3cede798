"""Networks checked before data and the training loop, which takes seconds to import."""

from importlib.metadata import entry_points
from pathlib import Path

from ..core import ConfigError
from ..models import build, read_weights
from ..models.build import is_absent_from_source, name_hint
from ..models.cut import MARK
from ..models.fit_weights import fit_weights, rename_tensors
from ..taps.taps import check_tap_names
from .document import PUBLISHED
from .plugins import GROUP
from .schema import Recipe

_ELSEWHERE = (*PUBLISHED, "fpn", "yolov5")


def check_networks_early(recipe: Recipe) -> None:
    """Refuse an unknown network, and of a `cifar/` network weights and taps that do not fit.

    The other families take as long to import as the training loop; of these the names are looked up
    in their source.

    Raises:
        ConfigError: there is no such network, tap or weights file.
        ArtifactError: the weights are corrupt or of another network.
    """
    named = (recipe.model, *recipe.peers, recipe.teacher_model)
    teacher = () if Path(recipe.teacher).exists() else (recipe.teacher,)
    for name in filter(None, (*named, *teacher)):
        _check_name(name, recipe)
    if recipe.model.partition("/")[0] == "cifar":
        _check_weights_and_taps(recipe)


def _check_name(model: str, recipe: Recipe) -> None:
    family, _, name = model.partition("/")
    if family in PUBLISHED and name:
        if is_absent_from_source(family, name.partition(MARK)[0]):
            raise ConfigError(f"there is no network '{model}'{name_hint(model)}")
    elif family == "cifar" or not (
        family in _ELSEWHERE or recipe.imports or entry_points(group=GROUP)
    ):
        build(model, num_classes=2)


def _check_weights_and_taps(recipe: Recipe) -> None:
    network = build(recipe.model, num_classes=2)  # a head for other classes is no fault
    if recipe.taps not in ("auto", "stages"):
        check_tap_names(network, [name.strip() for name in recipe.taps.split(",")])
    path = Path(recipe.weights)
    if path.suffix != ".safetensors":  # others take a process to read, and are read once
        return
    state = read_weights(path)
    first = next(name for name, tensor in network.state_dict().items() if tensor.dim() == 4)
    renamed, _ = rename_tensors(state, network.state_dict())
    if first in renamed and renamed[first].dim() == 4:  # the data's channels may be other than 3
        network = build(recipe.model, num_classes=2, in_channels=renamed[first].shape[1])
    fit_weights(state, network, f"weights '{path}'")
