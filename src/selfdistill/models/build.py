"""Networks by name."""

import difflib
import fnmatch
import re
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from torch import nn

from ..core import ConfigError, ResourceError, nearest
from ..modules.last_layer import replace_last_layer
from . import clips, detectors, segmentation, yolov5
from .cifar import NETWORKS
from .cut import BOTTLENECK, MARK, CutNetwork
from .weights import load_weights

# timm and torchvision are imported where they are used: they take seconds, and `cifar/` needs none


def build(
    model: str | nn.Module, *, num_classes: int, in_channels: int = 3, weights: str = ""
) -> nn.Module:
    """A network by name: `cifar/resnet18`, `timm/convnext_tiny`, `torchvision/resnet50`.

    `NAME@MODULE` is the network up to one of its modules, with a linear classifier behind it, and
    `NAME@MODULE+bottleneck` with the bottleneck of an exit before that.

    Examples:
        >>> network = build("cifar/resnet20", num_classes=10)
        >>> network.cuts
        ('stem', 'layer1', 'layer2', 'layer3')

    Args:
        model: a family and a name (`list_models` lists them), or a network, which is handed back.
        num_classes: outputs.
        in_channels: channels of the images; torchvision's networks take 3 only.
        weights: nothing for a random initialization, `pretrained` for what the family offers, or
            the path of a file, see `load_weights`.
    """
    if isinstance(model, str) and MARK in model:
        return _cut(model, num_classes, in_channels, weights)
    pretrained = weights == "pretrained"
    registered = _REGISTERED.get(model) if isinstance(model, str) else None
    if isinstance(model, nn.Module):
        if pretrained:
            raise ConfigError("'pretrained' weights go with a network's name, not with a network")
        network = model
    elif registered:
        if pretrained:
            raise ConfigError(f"no pretrained weights are known for '{model}'; give a weights file")
        network = registered(num_classes=num_classes, in_channels=in_channels)
    else:
        family, _, name = model.partition("/")
        if family not in _FAMILIES or not name:
            raise ConfigError(f"there is no network '{model}'{name_hint(model)}")
        network = _FAMILIES[family](name, num_classes, in_channels, pretrained)
    if weights and not pretrained:
        load_weights(network, weights)
    return network


def _cut(model: str, num_classes: int, in_channels: int, weights: str) -> nn.Module:
    name, _, rest = model.partition(MARK)
    tap = rest.removesuffix(BOTTLENECK)
    if not tap:
        raise ConfigError(f"'{model}' names no module; `selfdistill taps {name}` lists them")
    published = "pretrained" if weights == "pretrained" else ""
    whole = build(name, num_classes=num_classes, in_channels=in_channels, weights=published)
    network = CutNetwork(whole, tap, num_classes, in_channels, bottleneck=tap != rest)
    if weights and not published:
        load_weights(network, weights)
    return network


def register_model(name: str, constructor: Callable[..., nn.Module]) -> None:
    """Make a network of your own known by a name, `family/name`.

    Args:
        name: not that of another network.
        constructor: takes `num_classes` and `in_channels` as keywords.

    Raises:
        ConfigError: the name has no family, or another network has it.
    """
    family, _, rest = name.partition("/")
    if not (family and rest):
        raise ConfigError(f"a network's name is family/name, not '{name}'")
    if family in _FAMILIES or _REGISTERED.get(name, constructor) is not constructor:
        raise ConfigError(f"'{name}' is taken by another network; choose another family")
    _REGISTERED[name] = constructor


def list_models(pattern: str = "") -> list[str]:
    """Names of all networks that `build` knows.

    Examples:
        >>> list_models("cifar/resnet1*_w16")
        ['cifar/resnet10_w16', 'cifar/resnet18_w16']

    Args:
        pattern: part of a name, or a shell pattern for a name with or without its family.
    """
    import timm

    of_torchvision = [
        *torchvision_names(),
        *segmentation.segmenter_names(),
        *detectors.detector_names(),
    ]
    pattern = pattern.lower()
    return [
        f"{family}/{name}"
        for family, members in _names(timm.list_models(), of_torchvision).items()
        for name in members
        if _matches(family.lower(), name.lower(), pattern)
    ]


def _names(
    timm_names: list[str] | None = None, torchvision_names: list[str] | None = None
) -> dict[str, list[str]]:
    """{family: names}; those of the libraries that are not given are read in their source."""
    families = {
        "cifar": sorted(NETWORKS),
        "timm": timm_names or names_in_source("timm"),
        "torchvision": torchvision_names or names_in_source("torchvision"),
        "clips": sorted(clips.NETWORKS),
        "fpn": ["small", "timm/BACKBONE"],
        "yolov5": list(yolov5.SCALES),
    }
    for full_name in _REGISTERED:
        family, _, name = full_name.partition("/")
        families.setdefault(family, []).append(name)
    return families


_OTHER_TASKS = ("optical_flow", "quantization")


def names_in_source(library: str) -> list[str]:
    """Names that timm or torchvision registers, without importing it: enough for a hint."""
    registered = re.compile(r"^@register_model.*?^def (\w+)", re.MULTILINE | re.DOTALL)
    return [name for text in _sources(library) for name in registered.findall(text)]


def is_absent_from_source(library: str, name: str) -> bool:
    """Whether timm or torchvision can have no network of this name, without importing it."""
    architecture = name.partition(".")[0]  # resnet50.a1_in1k: one of its sets of weights
    quoted = re.compile(f"[\"']{re.escape(architecture)}[\"']")  # an older name of a network
    texts = _sources(library)
    return bool(texts) and not any(
        f"def {architecture}(" in text or quoted.search(text) for text in texts
    )


def _sources(library: str) -> list[str]:
    """The files that define networks; none where the library is installed in another form."""
    spec = find_spec(library)
    folders = spec.submodule_search_locations if spec else None
    files = sorted(Path(folders[0], "models").rglob("*.py")) if folders else []
    return [file.read_text("utf-8") for file in files if file.parent.name not in _OTHER_TASKS]


def _matches(family: str, name: str, pattern: str) -> bool:
    if not set(pattern) & set("*?["):
        return pattern in f"{family}/{name}"
    return any(fnmatch.fnmatchcase(n, pattern) for n in (name, f"{family}/{name}"))


def name_hint(model: str) -> str:
    """A hint for a misspelt name; of two networks of one name our own comes first."""
    everything = [f"{family}/{name}" for family, names in _names().items() for name in names]
    if "/" in model:
        family = [n for n in everything if n.startswith(model.partition("/")[0] + "/")]
        return nearest(model, family or everything)
    full = {n.partition("/")[2]: n for n in reversed(everything)}
    close = difflib.get_close_matches(model, full, n=1, cutoff=0.5)
    return f" (did you mean '{full[close[0]]}'?)" if close else nearest(model, everything)


def _cifar(name: str, num_classes: int, in_channels: int, pretrained: bool) -> nn.Module:
    if name not in NETWORKS:
        raise ConfigError(f"there is no network 'cifar/{name}'{name_hint(f'cifar/{name}')}")
    if pretrained:
        raise ConfigError(
            f"no pretrained weights exist for cifar/ networks such as '{name}'; "
            "give a weights file or a timm/ network"
        )
    return NETWORKS[name](num_classes=num_classes, in_channels=in_channels)


def _timm(name: str, num_classes: int, in_channels: int, pretrained: bool) -> nn.Module:
    import timm

    if not timm.is_model(name):
        raise ConfigError(f"there is no network 'timm/{name}'{name_hint(f'timm/{name}')}")
    offered = timm.models.is_model_pretrained(name)
    architecture, _, tag = name.partition(".")  # resnet50.a1_in1k: one of its sets of weights
    if tag and not offered:
        tagged = timm.list_models(f"{architecture}.*", pretrained=True)
        raise ConfigError(f"timm has no weights '{name}'{nearest(name, tagged)}")
    if pretrained and not offered:
        raise ConfigError(f"timm has no pretrained weights for '{name}'; give a weights file")
    keywords: dict[str, Any] = {"num_classes": num_classes, "in_chans": in_channels}
    if pretrained:
        return create_pretrained(f"timm/{name}", timm.create_model, pretrained=True, **keywords)
    return timm.create_model(name, **keywords)


def _clips(name: str, num_classes: int, in_channels: int, pretrained: bool) -> nn.Module:
    if name not in clips.NETWORKS:
        raise ConfigError(f"there is no network 'clips/{name}'{name_hint(f'clips/{name}')}")
    if pretrained:
        raise ConfigError(
            f"no pretrained weights exist for clips/ networks such as '{name}'; give a weights "
            "file, or take torchvision/r3d_18"
        )
    return clips.NETWORKS[name](num_classes=num_classes, in_channels=in_channels)


def torchvision_names() -> list[str]:
    """torchvision's classifiers of images and of clips."""
    from torchvision import models

    library: Any = models
    return [name for kind in (library, library.video) for name in library.list_models(module=kind)]


def _torchvision(name: str, num_classes: int, in_channels: int, pretrained: bool) -> nn.Module:
    from torchvision.models import get_model  # type: ignore[attr-defined]

    constructors = {
        **dict.fromkeys(segmentation.segmenter_names(), segmentation.torchvision_segmenter),
        **dict.fromkeys(detectors.detector_names(), detectors.torchvision_detector),
    }
    if name not in (*torchvision_names(), *constructors):
        raise ConfigError(
            f"there is no network 'torchvision/{name}'{name_hint(f'torchvision/{name}')}"
        )
    if in_channels != 3:
        raise ConfigError(
            f"torchvision networks take 3 channels, not {in_channels}; timm/ and cifar/ take any"
        )
    if (create := constructors.get(name)) and pretrained:
        return create_pretrained(
            f"torchvision/{name}", create, num_classes=num_classes, pretrained=True
        )
    if create:
        return create(name, num_classes, False)
    # these two would return a tuple of outputs while they train
    auxiliary = name in ("googlenet", "inception_v3")
    keywords: dict[str, Any] = {"aux_logits": False} if auxiliary else {}
    if pretrained:
        network = create_pretrained(f"torchvision/{name}", get_model, weights="DEFAULT", **keywords)
        replace_last_layer(network, num_classes)
        return network
    if auxiliary:
        keywords["init_weights"] = True  # torchvision warns of a change of its default
    return get_model(name, num_classes=num_classes, **keywords)  # type: ignore[no-any-return]


def create_pretrained(model: str, create: Callable[..., nn.Module], **keywords: Any) -> nn.Module:
    """Create a network whose weights are downloaded."""
    try:
        return create(model.partition("/")[2], **keywords)
    except Exception as error:  # hubs raise their HTTP library's, which have no common base
        raise ResourceError(
            f"pretrained weights of '{model}' could not be fetched ({type(error).__name__}); "
            "check the connection, or download them and give the file as weights"
        ) from error


_FAMILIES: dict[str, Callable[[str, int, int, bool], nn.Module]] = {
    "cifar": _cifar,
    "clips": _clips,
    "timm": _timm,
    "torchvision": _torchvision,
    "fpn": segmentation.build_fpn,
    "yolov5": yolov5.build_yolov5,
}
_REGISTERED: dict[str, Callable[..., nn.Module]] = {}
