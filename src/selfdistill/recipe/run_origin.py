"""Recipe and data that a run rests on, bound to its checkpoints, whose checksums cover them."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..core import ArtifactError, ConfigError
from ..engine.checkpoint import Checkpoint
from ..engine.run_directory import RunDirectory
from ..records.training_data import DATA_FILE, TrainingData, read_training_data
from .document import read_toml
from .fields import Recipe

MACHINE_KEYS = {"device", "devices", "num_nodes", "num_workers", "data_root", "teacher_model"}
MACHINE_KEYS |= {"cache_dir", "shard_teacher", "track", "track_project"}
"""What decides where a run is made and shown, and not what comes out of it."""
# May be edited by hand: how often to write, and where things lie that are checked by themselves.
_EDITABLE = MACHINE_KEYS | {"log_every_steps", "save_every_steps", "val_every_epochs"}
_EDITABLE |= {"data", "teacher", "imports"}
_RECIPE_FILE = "recipe.toml"


@dataclass(frozen=True)
class RunOrigin:
    """Recipe and data of a run, as its directory and its checkpoints hold them.

    Attributes:
        path: the run's directory.
        texts: of recipe.toml and data.json, by name.
        extended: whether the run may go on to more epochs than its checkpoint was to reach.
    """

    path: Path
    texts: Mapping[str, str]
    extended: bool = False

    def check(self, saved: Mapping[str, str]) -> None:
        """Raise unless a checkpoint rests on these.

        Raises:
            ConfigError: another recipe; the first key that differs is named.
            ArtifactError: other classes or another normalization, or the checkpoint says nothing.
        """
        if not saved.keys() >= self.texts.keys():
            raise ArtifactError(
                f"the checkpoint of {self.path} does not tell the recipe and the data of the run, "
                "so it is of no run of this version; train it anew"
            )
        own, other = (recipe_table(t[_RECIPE_FILE], self.path) for t in (self.texts, saved))
        self._check_recipe(own, other)
        if _loaded(self.texts[DATA_FILE]) != _loaded(saved[DATA_FILE]):
            raise ArtifactError(
                f"{self.path / DATA_FILE} was changed since the training: its classes or its "
                "normalization are not those that the checkpoint was trained with; put the old "
                "file back"
            )

    def _check_recipe(self, own: dict[str, Any], saved: dict[str, Any]) -> None:
        for key in dict.fromkeys([*own, *saved]):
            new: Any = own.get(key)
            old: Any = saved.get(key)
            added = key not in saved and _is_default(key, new)  # by a later version
            if key in _EDITABLE or new == old or added:
                continue
            if key == "epochs" and self.extended and new > old:
                continue
            remedy = "write it back, or start a new run"
            if key == "epochs":
                remedy += f"; train --resume {self.path} --epochs N is what extends a run"
            raise ConfigError(
                f"{self.path / _RECIPE_FILE} was changed: its {key} is {new!r} and the checkpoint "
                f"was trained with {old!r}; {remedy}"
            )


def _is_default(key: str, value: Any) -> bool:
    field = Recipe.model_fields.get(key)
    default = field.default if field else None
    return field is not None and value == ([*default] if isinstance(default, tuple) else default)


def _loaded(text: str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return None


def recipe_table(text: str, path: Path) -> dict[str, Any]:
    """The keys of a run's recipe, not yet checked.

    Raises:
        ConfigError: it is not TOML.
    """
    try:
        return read_toml(text.encode())
    except ValueError as error:
        raise ConfigError(f"{path / _RECIPE_FILE} is not TOML: {error}") from None


def read_origin(directory: RunDirectory, *, extended: bool = False) -> RunOrigin:
    """What a run rests on, by the files in its directory.

    Raises:
        ArtifactError: data.json cannot be read.
    """
    data = read_training_data(directory.path)
    texts = {_RECIPE_FILE: directory.recipe(), DATA_FILE: data.to_json()}
    return RunOrigin(directory.path, texts, extended)


def checked_training_data(directory: RunDirectory, saved: Checkpoint) -> TrainingData:
    """The data that a checkpoint was trained on, when recipe and data are still those of it.

    Raises:
        ConfigError: the recipe was changed.
        ArtifactError: data.json was changed or cannot be read.
    """
    read_origin(directory).check(saved.state["origin"])
    return read_training_data(directory.path)
