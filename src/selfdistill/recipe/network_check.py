"""A network checked by itself, before data and the training loop, which takes seconds to import."""

from importlib.metadata import entry_points
from pathlib import Path

from ..models import build, read_weights
from ..models.fit_weights import fit_weights, rename_tensors
from ..taps.taps import check_tap_names
from .plugins import GROUP
from .schema import Recipe

_ELSEWHERE = ("timm", "torchvision", "fpn", "yolov5")


def check_network_early(recipe: Recipe) -> None:
    """Refuse an unknown network, and of a `cifar/` network weights and taps that do not fit.

    The other families take as long to import as the training loop.

    Raises:
        ConfigError: there is no such network, tap or weights file.
        ArtifactError: the weights are corrupt or of another network.
    """
    family = recipe.model.partition("/")[0]
    if family in _ELSEWHERE or (
        family != "cifar" and (recipe.imports or entry_points(group=GROUP))
    ):
        return
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
