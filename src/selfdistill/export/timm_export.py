"""Export as a folder from which timm builds a network, on the disk or on the Hugging Face Hub."""

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import nn

from ..core import STUDENT, ConfigError, Method
from ..data import ImageData
from ..data.preparation import Preparation, preparation_of
from ..models.one_stage import OneStageDetector
from ..models.two_stage import FasterRCNN
from ..modules.composite import CompositeNetwork
from .normalized_input import NormalizedInput
from .safetensors_export import write_weights

_CROP_MODES = {"stretch": "squash", "crop": "center"}
"""timm's names of the ways to bring a classifier's picture to size."""
_OF_THE_ARCHITECTURE = ("architecture", "fixed_input_size", "first_conv", "classifier")


def check_timm_network(method: Method, predictor: str) -> None:
    """Raise `ConfigError` unless a predictor is a whole network that timm builds by its name."""
    networks = method.predictors()
    network = networks[predictor]
    if _architecture(network):
        return
    formats = "--format onnx, pt2 or safetensors"
    if isinstance(network, CompositeNetwork):
        formats = "--format onnx or pt2"
    elif isinstance(network, OneStageDetector | FasterRCNN):
        formats = "--format safetensors"
    whole = "--exit student, or " if _architecture(networks[STUDENT]) else ""
    raise ConfigError(
        f"--format timm is for whole networks that timm builds, and '{predictor}' "
        f"({type(network).__name__}) is none; take {whole}{formats}"
    )


def _architecture(network: nn.Module) -> str:
    """The name by which timm builds a network; "" of all others."""
    config = getattr(network, "pretrained_cfg", None)
    name = config.get("architecture") if isinstance(config, dict) else None
    if not name:
        return ""
    import timm  # takes seconds, and only its own networks come this far

    return str(name) if timm.is_model(name) else ""


def write_timm(
    network: nn.Module,
    file: Path,
    data: ImageData,
    *,
    label_names: list[str],
    metadata: Mapping[str, str],
) -> nn.Module:
    """Write weights and config.json, and return what timm makes of them, for images in 0 … 1.

    Args:
        network: of timm, as `extract_predictor` returns it; gets the configuration of the data.
        file: of the weights; config.json is written beside it.
        data: at the image size of the file.
        label_names: of the classes; [] where outputs are no classes.
        metadata: texts by name, kept in the header of the weights.

    Raises:
        ConfigError: timm builds another network by this name.
    """
    import timm
    from timm.data.config import resolve_model_data_config
    from timm.models._hub import save_config_for_hf  # writes the file that the Hub's readers know

    write_weights(network, file, metadata=metadata)
    own: Any = network.pretrained_cfg
    # All that is said of timm's own weights, such as their license and label offset, is left out.
    kept = {key: own.get(key) for key in _OF_THE_ARCHITECTURE}
    network.pretrained_cfg = {**kept, **pretrained_cfg(data)}  # type: ignore[assignment]
    labels = {"label_names": label_names} if label_names else {}
    try:
        save_config_for_hf(network, str(file.parent / "config.json"), model_config=labels)
        loaded = timm.create_model(f"local-dir:{file.parent}", pretrained=True)
    except (ValueError, TypeError, AttributeError, RuntimeError) as error:
        raise ConfigError(
            f"timm builds another network by the name '{own['architecture']}' "
            f"({(str(error).splitlines() or [''])[0]}); take --format onnx, pt2 or safetensors"
        ) from error
    config = resolve_model_data_config(loaded)
    return NormalizedInput(loaded, config["mean"], config["std"]).eval()


def pretrained_cfg(data: ImageData) -> dict[str, Any]:
    """What timm is told of the images that a network was trained on."""
    preparation = preparation_of(data)
    return {
        "input_size": preparation.shape,
        "interpolation": "bilinear",
        "crop_pct": _crop_share(preparation),
        "crop_mode": _CROP_MODES[preparation.fit],
        "mean": data.mean,
        "std": data.std,
        "num_classes": len(data.classes),
        "pool_size": None,
        "custom_load": False,
    }


def _crop_share(preparation: Preparation) -> float:
    """By what timm divides the sides, rounding down, for the size that a picture is resized to."""
    height = preparation.shape[-2]
    resized = max(height, round(height * preparation.resize_ratio))
    share = height / resized
    # the quotient may come out below the whole number that it is
    return share if math.floor(height / share) == resized else math.nextafter(share, 0)
