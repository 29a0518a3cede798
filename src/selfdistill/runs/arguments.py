"""Arguments of `train` and of what takes the same: names go to the recipe, objects stay objects."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import nn

from ..core import ConfigError, check_kind
from ..data import ImageData


@dataclass(frozen=True)
class TrainingArguments:
    """Keys of a recipe, and the objects that were given in place of names."""

    keys: dict[str, Any]
    model: nn.Module | None
    data: ImageData | None
    teacher: nn.Module | None
    peers: list[nn.Module]

    def objects(self) -> dict[str, Any]:
        """The objects as keywords of `train_recipe`."""
        return {name: getattr(self, name) for name in ("model", "data", "teacher", "peers")}


def training_arguments(
    keys: Mapping[str, Any],
    model: str | nn.Module | None = None,
    data: str | ImageData | None = None,
    teacher: str | Path | nn.Module | None = None,
    peers: str | nn.Module | Sequence[str | nn.Module] = (),
) -> TrainingArguments:
    """Separate names from objects; an object is known to the recipe by its class or its name.

    Raises:
        ConfigError: peers are names and modules mixed, or something is neither.
    """
    keys = dict(keys)
    peers = [peers] if isinstance(peers, str | nn.Module) else peers
    _check_kinds(model, data, teacher, peers)
    check_kind(
        "weights",
        keys.get("weights"),
        str | Path | None,
        "pretrained, or the path of a file or a run (tensors go into a module by load_state_dict, "
        "and that is given as model)",
    )
    if model is not None:
        keys["model"] = type(model).__name__ if isinstance(model, nn.Module) else model
    if data is not None:
        keys["data"] = data.name if isinstance(data, ImageData) else data
    if teacher is not None:
        is_module = isinstance(teacher, nn.Module)
        keys["teacher"] = type(teacher).__name__ if is_module else str(teacher)
    modules = [peer for peer in peers if isinstance(peer, nn.Module)]
    if modules and len(modules) < len(peers):
        raise ConfigError("peers are names or modules, not some of each")
    if peers:
        keys["peers"] = [type(p).__name__ if isinstance(p, nn.Module) else p for p in peers]
    return TrainingArguments(
        keys,
        model if isinstance(model, nn.Module) else None,
        data if isinstance(data, ImageData) else None,
        teacher if isinstance(teacher, nn.Module) else None,
        modules,
    )


def _check_kinds(model: Any, data: Any, teacher: Any, peers: Sequence[Any]) -> None:
    """Raises `ConfigError` for an object that is neither a name nor what can stand for one."""
    for name, given in [("model", model), ("teacher", teacher), *(("peer", p) for p in peers)]:
        kinds = str | Path | nn.Module | None
        check_kind(f"a {name}", given, kinds, "a name or a torch.nn.Module")
    check_kind(
        "data",
        data,
        str | ImageData | None,
        "a name, such as folder:PATH, or an ImageData, which InMemoryImages make of tensors "
        "(a loop of your own takes selfdistill.wrap)",
    )
