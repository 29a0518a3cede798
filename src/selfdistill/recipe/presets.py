"""Presets: the settings that a recipe begins with, by what is trained, from `presets.toml`."""

import os
import warnings
from collections.abc import Mapping, Sequence
from fnmatch import fnmatchcase
from functools import cache
from pathlib import Path
from typing import Any, Literal, NamedTuple

from pydantic import BaseModel, ConfigDict

from ..core import ConfigError, read_regular
from .default_method import default_method
from .document import read, read_toml
from .fields import Recipe
from .merge import merge_keys
from .options import method_classes, task_of
from .plugins import import_recipe_plugins
from .published import runnable_rows

FILE = Path(__file__).with_name("presets.toml")
CONVOLUTIONAL = "convolutional"
"""The family of networks that no family of the file matches."""
_MIXING = ("mixup", "cutmix")
_PANELS = {"Training", "Fine-tuning", "Augmentation"}
PRESET_KEYS = {
    key
    for key, field in Recipe.model_fields.items()
    if isinstance(field.json_schema_extra, dict)
    and field.json_schema_extra["panel"] in _PANELS
    and key not in ("seed", "freeze_until")
}
"""Keys that a preset may set."""


class Rule(BaseModel):
    """Values for all recipes of a kind; None is any.

    Attributes:
        weights: whether the network has initial weights.
        why: where the values are from, a phrase.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    preset: Literal["scratch", "finetune", "strong"] | None = None
    task: str | None = None
    family: str | None = None
    weights: bool | None = None
    why: str
    values: dict[str, Any]


class PresetTable(BaseModel):
    """The file of presets: {family: patterns of networks' names}, and rules."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    families: dict[str, tuple[str, ...]]
    rule: tuple[Rule, ...]


class Preset(NamedTuple):
    """A preset as it holds for a recipe.

    Attributes:
        name: scratch, finetune, strong or paper.
        source: what it is for, or the row that it is from, a phrase.
        values: keys of a recipe; a paper's hold `options`, too.
    """

    name: str
    source: str
    values: dict[str, Any]


@cache
def preset_table() -> PresetTable:
    """The file, checked."""
    return PresetTable.model_validate(read_toml(read_regular(FILE)))


def with_preset(
    file: Mapping[str, Any], keys: Mapping[str, Any], methods: Sequence[str] = ()
) -> dict[str, Any]:
    """A recipe's dictionary with keys put over it, and what neither has from the preset.

    A preset among the keys goes before the file's values, and one in the file, or one that is
    chosen by itself, behind them.

    Args:
        file: a recipe's dictionary.
        keys: of a recipe, and options of its method.
        methods: those that share the recipe; without any that of the recipe.

    Raises:
        ConfigError: no paper's recipe is known for the method.
    """
    import_recipe_plugins({**file, **keys})  # before methods are asked what they need
    merged = merge_keys(file, keys)
    merged = {**_network_of_run(merged), **merged}
    import_recipe_plugins(merged)  # those of a run whose weights are taken
    preset = resolve_preset(merged, methods)
    model = str(merged.get("model", Recipe.model_fields["model"].default))
    if preset.name == "finetune" and not merged.get("weights") and "/" in model:
        # a module that was given is known by its class, and may have been trained before
        warnings.warn(
            f"the preset finetune is for a trained network, and {model} begins with random "
            "weights; give others as weights: pretrained (of timm or torchvision), a file, or a "
            "run",
            stacklevel=2,
        )
    values = {key: value for key, value in preset.values.items() if key != "options"}
    options = preset.values.get("options", {})
    before_file = "preset" in keys
    given = {**keys, **keys.get("options", {})}
    over = {k: v for k, v in values.items() if before_file and k not in keys}
    options_over = {k: v for k, v in options.items() if before_file and k not in given}
    whole = {**values, **merged, **over, "preset": preset.name}
    whole["options"] = {**options, **merged["options"], **options_over}
    _check_schedule(whole, keys)
    return whole


def _check_schedule(recipe: Mapping[str, Any], keys: Mapping[str, Any]) -> None:
    """Raises `ConfigError` if one of a step schedule and its milestones is given without the other.

    Milestones that a file or a preset brings are passed over by who gives another schedule.
    """
    schedule = recipe.get("lr_schedule", Recipe.model_fields["lr_schedule"].default)
    if schedule == "step" and not recipe.get("milestones"):
        raise ConfigError(
            "lr_schedule 'step' drops the rate at milestones, and there are none; give milestones, "
            "the epochs, or lr_schedule 'constant'"
        )
    if schedule != "step" and keys.get("milestones"):
        raise ConfigError(
            f"milestones are of lr_schedule 'step', and this one is '{schedule}'; give "
            "lr_schedule 'step', too, or leave the milestones out"
        )


def _network_of_run(recipe: Mapping[str, Any]) -> dict[str, Any]:
    """The network's name, and the modules that define it, where weights are those of a run.

    Keys that are given go before these.
    """
    weights = recipe.get("weights")
    if not weights or not isinstance(weights, str | os.PathLike):
        return {}  # what it is instead is told when the recipe is checked
    path = Path(weights) / "recipe.toml"
    if not path.is_file():
        return {}
    own = read(path)
    if not isinstance(own.get("model"), str):
        return {}
    import_recipe_plugins(own, run_dir=path.parent)
    return {key: own[key] for key in ("model", "imports") if key in own}


def resolve_preset(recipe: Mapping[str, Any], methods: Sequence[str] = ()) -> Preset:
    """The preset of a recipe's dictionary, which need not be complete."""
    complete = {key: recipe.get(key, field.default) for key, field in Recipe.model_fields.items()}
    methods = methods or [str(complete["method"] or default_method(complete).method)]
    classes = [cls for name in methods for cls in method_classes(name).values()]
    trained = bool(complete["weights"]) and not any(cls.needs.trained_student for cls in classes)
    complete["task"] = task_of(methods[-1], str(recipe.get("task", "")))
    name = str(complete["preset"])
    if name == "auto":
        name = "finetune" if trained else "scratch"
    if name == "paper":
        return _paper(methods[-1], complete)
    family = network_family(str(complete["model"]))
    values: dict[str, Any] = {}
    for rule in preset_table().rule:
        if rule.preset in (None, name) and _holds(rule, str(complete["task"]), family, trained):
            values |= rule.values
    if not all(cls.needs.mixtures for cls in classes):
        values = {key: value for key, value in values.items() if key not in _MIXING}
    if complete["batch_size"] != Recipe.model_fields["batch_size"].default:
        values.pop("accumulation_steps", None)  # which need not divide it
    epochs = recipe.get("epochs", values.get("epochs", complete["epochs"]))
    if "warmup_epochs" in values and isinstance(epochs, int):
        values["warmup_epochs"] = min(values["warmup_epochs"], epochs / 10)
    weights = "initial" if trained else "random"
    source = f"{complete['task']}, {family} network, {weights} weights"
    return Preset(name, source, values)


def _holds(rule: Rule, task: str, family: str, weights: bool) -> bool:
    conditions = ((rule.task, task), (rule.family, family), (rule.weights, weights))
    return all(wanted in (None, actual) for wanted, actual in conditions)


def network_family(model: str) -> str:
    """The family of a network by its name, "convolutional" where no pattern matches."""
    families = preset_table().families.items()
    matching = (f for f, patterns in families if any(fnmatchcase(model, p) for p in patterns))
    return next(matching, CONVOLUTIONAL)


def _paper(method: str, recipe: Mapping[str, Any]) -> Preset:
    """The recipe of the method's own paper, of the row nearest to the network and the data."""
    of_task = {
        name: keys
        for name, keys in runnable_rows().items()
        if keys.get("task", Recipe.model_fields["task"].default) == recipe["task"]
    }
    rows = {name: keys for name, keys in of_task.items() if keys.get("method") == method}
    if not rows:
        known = sorted({str(keys["method"]) for keys in of_task.values()})
        raise ConfigError(
            f"no paper's recipe is known for method '{method}' and task '{recipe['task']}'; choose "
            f"another preset, or one of these methods: {', '.join(known) or 'none'}"
        )

    def nearness(name: str) -> tuple[bool, ...]:
        same = [rows[name].get(key) == recipe[key] for key in ("model", "data")]
        return (name.partition("/")[0].replace("_", "-") in method, all(same), *same)

    name = max(rows, key=nearness)
    keep = {*PRESET_KEYS, "options"}
    values = {key: value for key, value in rows[name].items() if key in keep and value != {}}
    return Preset("paper", f"row {name}", values)


def describe_preset(recipe: Recipe) -> str:
    """The preset of a complete recipe and the values that are its own, a phrase, or "".

    Nothing is said of the plain defaults.
    """
    if recipe.preset == "auto":
        return ""
    given = recipe.model_dump()
    preset = resolve_preset(given)
    values = {k: v for k, v in preset.values.items() if k != "options"}
    options = preset.values.get("options", {})
    same = [f"{k} {_text(v)}" for k, v in values.items() if _same(given[k], v)]
    same += [f"{k} {_text(v)}" for k, v in options.items() if _same(recipe.options.get(k), v)]
    other = [k for k, v in values.items() if not _same(given[k], v)]
    other += [k for k, v in options.items() if not _same(recipe.options.get(k), v)]
    if not values and recipe.preset == "scratch":
        return ""
    text = f"{preset.name} ({preset.source}): {', '.join(same) or 'nothing is left of it'}"
    return text + (f"; given otherwise: {', '.join(other)}" if other else "")


def _same(value: Any, other: Any) -> bool:
    return bool(value == (tuple(other) if isinstance(other, list) else other))


def _text(value: Any) -> str:
    if isinstance(value, list):
        return ",".join(map(str, value))
    return f"{value:g}" if isinstance(value, float) else str(value).lower()
