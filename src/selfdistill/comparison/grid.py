"""Grid of a study: rows and seeds that share one recipe, with a baseline trained by the same."""

import tomllib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from ..core import METHODS, ArtifactError, ConfigError, nearest
from ..models.cut import MARK
from ..recipe.default_method import default_method
from ..recipe.document import COMPANION_KEYS, METHOD_KEYS
from ..recipe.options import (
    companion_keys,
    is_baseline,
    known_options,
    method_classes,
    reads_extra,
)
from ..recipe.presets import with_preset
from ..recipe.schema import Recipe, parse, write
from ..runs.paths import first_difference
from ..tasks import TASKS
from .rows import ComparisonRow

_ROW_KEYS = ("method", *METHOD_KEYS)
"""Keys that are not shared by all rows."""
_OPTION_OF_KEY = {"seed": "--seeds", "method": "--methods", "options": "--set KEY=VALUE"}
CUT = "model"
"""Key by which a row cuts the network of all rows behind another module."""
VERSION = 1


@dataclass(frozen=True)
class Study:
    """Grid of runs.

    Attributes:
        rows: {name: recipe}, the baseline first; equal but for the method and what it needs, and
            for where the network is cut.
        seeds: each row is trained with each of them.
        exit: predictor that is compared with the baseline's student.
    """

    rows: dict[str, Recipe]
    seeds: tuple[int, ...]
    exit: str = "student"

    @property
    def baseline(self) -> str:
        """Name of the row that all others are compared with."""
        return next(iter(self.rows))

    @property
    def metric(self) -> str:
        """Primary metric of the task."""
        return TASKS[self.rows[self.baseline].task].primary_metric

    @property
    def cells(self) -> list[tuple[str, int]]:
        """All (row, seed), seed by seed, so that a study that is cut short can be compared."""
        return [(row, seed) for seed in self.seeds for row in self.rows]

    @property
    def shared(self) -> dict[str, Any]:
        """Recipe keys that all rows share; keys without a value are left out."""
        recipe = tomllib.loads(write(self.rows[self.baseline]))
        return {k: v for k, v in recipe.items() if k not in (*_ROW_KEYS, "seed")}

    def recipe(self, row: str, seed: int) -> Recipe:
        """Recipe of one run."""
        return self.rows[row].model_copy(update={"seed": seed})

    def to_dict(self) -> dict[str, Any]:
        """The study as `study_from_dict` reads it; keys without a value are left out."""
        shared = self.shared
        rows = {
            name: {
                k: v
                for k, v in tomllib.loads(write(recipe)).items()
                if k in _row_keys(recipe) or (k == CUT and v != shared[k])
            }
            for name, recipe in self.rows.items()
        }
        header = {"version": VERSION, "seeds": list(self.seeds), "exit": self.exit}
        return {**header, "recipe": shared, "rows": rows}


def _row_keys(recipe: Recipe) -> set[str]:
    """Keys that a row may set for itself."""
    return {"method", "options", *companion_keys(recipe.method)}


def study_from_dict(content: Mapping[str, Any], path: str) -> Study:
    """Study from the dictionary that `Study.to_dict` made.

    Args:
        content: the dictionary.
        path: file that it comes from, for error messages.

    Raises:
        ArtifactError: it describes no study, or a newer version wrote it.
    """
    if content.get("version", 0) > VERSION:
        raise ArtifactError(f"{path} was written by a newer version of selfdistill; update it")
    try:
        rows = {
            str(name): parse({**content["recipe"], **row}) for name, row in content["rows"].items()
        }
        seeds = tuple(int(seed) for seed in content["seeds"])
        study = Study(rows, seeds, str(content["exit"]))
        if not (seeds and is_baseline(rows[study.baseline].method)):
            raise ValueError("it has no seeds or does not begin with a baseline")
    except (KeyError, TypeError, ValueError, AttributeError, StopIteration) as error:
        raise ArtifactError(f"{path} describes no study: {error}") from None
    return study


def plan_study(
    rows: Sequence[ComparisonRow],
    seeds: tuple[int, ...],
    *,
    file: Mapping[str, Any] | None = None,
    keys: Mapping[str, Any] | None = None,
    exit: str = "student",
) -> Study:
    """Study of these rows and seeds by one recipe; the baseline is put first, or added.

    Args:
        rows: rows to compare; an empty list is the method of the recipe.
        seeds: of weights, order and augmentation.
        file: content of a recipe file. Its method's options go to the rows of that method, its
            teacher and peers to the methods that learn from such.
        keys: override the file; a key that is not of the recipe goes to every method that has such
            an option.
        exit: predictor to compare.

    Raises:
        ConfigError: a row twice, an unknown key, or a value that does not fit.
    """
    file, keys = file or {}, keys or {}
    for key in keys:
        if key in _OPTION_OF_KEY:
            raise ConfigError(f"'{key}' of a comparison is given by {_OPTION_OF_KEY[key]}")
    file_method = str(file.get("method") or default_method({**file, **keys}).method)
    rows = _with_baseline(rows or [ComparisonRow(file_method, file_method, {})])
    _check_known(keys, rows)
    file, keys = _with_shared_preset(rows, file, keys)
    study = Study({r.name: _row_recipe(r, file, file_method, keys) for r in rows}, seeds, exit)
    for name, recipe in study.rows.items():
        if recipe.task != study.rows[study.baseline].task:
            raise ConfigError(
                f"row '{name}' reads no label, so nothing compares it with '{study.baseline}'; "
                "train it first, and compare methods that start from it: --weights with its run"
            )
    return study


def _with_shared_preset(
    rows: Sequence[ComparisonRow], file: Mapping[str, Any], keys: Mapping[str, Any]
) -> tuple[dict[str, Any], dict[str, Any]]:
    """File and keys with one preset for all rows, that of the last of them: rows differ in method.

    Options of a paper's recipe belong to its own method's rows, which give them themselves.
    """
    shared = {k: v for k, v in keys.items() if k in Recipe.model_fields}
    own = {k: v for k, v in file.items() if k != "options"}
    whole = with_preset(own, shared, [row.method for row in rows])
    kept = {k: v for k, v in whole.items() if k not in ("options", *keys)}
    options = {"options": file["options"]} if "options" in file else {}
    return {**kept, **options, "preset": whole["preset"]}, {
        k: v for k, v in keys.items() if k != "preset"
    }


def _with_baseline(rows: Iterable[ComparisonRow]) -> list[ComparisonRow]:
    rows = sorted(rows, key=lambda row: not _is_baseline(row))
    if not _is_baseline(rows[0]):
        baseline = next(name for name in METHODS if METHODS[name].kind == "baseline")
        rows.insert(0, ComparisonRow(baseline, baseline, {}))
    for i, row in enumerate(rows):
        for other in rows[:i]:
            if row.name.lower() == other.name.lower():  # one folder, on some systems
                raise ConfigError(
                    f"two rows are named '{row.name}'; leave one out, or name it: "
                    f"another={row.method}"
                )
            if (row.method, row.settings) == (other.method, other.settings):
                raise ConfigError(f"rows '{other.name}' and '{row.name}' are the same")
    return rows


def _is_baseline(row: ComparisonRow) -> bool:
    return is_baseline(row.method) and CUT not in row.settings


def _check_known(keys: Mapping[str, Any], rows: Sequence[ComparisonRow]) -> None:
    """Raises `ConfigError` for a key that neither a recipe nor any row's method has."""
    options = {option for row in rows for option in known_options(row.method)}
    known = [*options, *(k for k in Recipe.model_fields if k not in _OPTION_OF_KEY)]
    for key in keys:
        if key not in known:
            raise ConfigError(
                f"neither a recipe nor any of the rows has '{key}'{nearest(key, known)}"
            )
    kinds = {cls.kind for row in rows for cls in method_classes(row.method).values()}
    for kind, (key, *_) in COMPANION_KEYS.items():
        if key in keys and kind not in kinds:
            users = ", ".join(name for name in METHODS if METHODS[name].kind == kind)
            raise ConfigError(f"no row has a use for {key}; these methods have: {users}")
    if "extra" in keys and not any(reads_extra(row.method) for row in rows):
        users = ", ".join(name for name in METHODS if METHODS[name].needs.extra)
        raise ConfigError(f"no row has a use for extra; these methods have: {users}")


def _row_recipe(
    row: ComparisonRow, file: Mapping[str, Any], file_method: str, keys: Mapping[str, Any]
) -> Recipe:
    """Recipe of a row: the file's keys, those given for all rows, and its own, in this order."""
    kinds = {cls.kind for cls in method_classes(row.method).values()}
    own_keys = companion_keys(row.method)
    known = known_options(row.method)
    for key in row.settings:
        if key == CUT:
            _check_cut(row, str({**file, **keys}.get(CUT, Recipe.model_fields[CUT].default)))
        elif key not in known and key not in own_keys:
            raise ConfigError(_unknown_setting(row, key))
    values = {
        k: v
        for k, v in {**file, **keys}.items()
        if (k in own_keys or k not in _ROW_KEYS) and (k not in keys or k in Recipe.model_fields)
    }
    own = file.get("options", {})
    if not isinstance(own, Mapping):
        raise ConfigError(f"[options] of a recipe is a table, not {own!r}")
    inherited = own if row.method == file_method else {}
    options = {**inherited, **{k: v for k, v in keys.items() if k in known}}
    options |= {k: v for k, v in row.settings.items() if k in known}
    companions = {
        k: [v] if k in COMPANION_KEYS["online"] else v
        for k, v in row.settings.items()
        if k not in known
    }
    recipe = parse({**values, **companions, "method": row.method, "options": options, "seed": 0})
    if "offline" in kinds and not recipe.teacher:
        raise ConfigError(
            f"row '{row.name}' learns from a teacher: give --teacher with a run, a weights file "
            "or timm/NAME (in Python: teacher=)"
        )
    return recipe


def _check_cut(row: ComparisonRow, shared: str) -> None:
    """Raises `ConfigError` if a row's network is not that of all rows, cut elsewhere or whole."""
    whole, model = shared.partition(MARK)[0], str(row.settings[CUT])
    if model.partition(MARK)[0] != whole or model == shared:
        raise ConfigError(
            f"the network of row '{row.name}' is to be {whole}, cut elsewhere than that of all "
            f"rows, {CUT}={whole}{MARK}MODULE, and not '{model}'"
        )


def _unknown_setting(row: ComparisonRow, key: str) -> str:
    if key in Recipe.model_fields:
        return (
            f"'{key}' of row '{row.name}' belongs to the recipe that all rows share; give it to "
            "all of them, or compare the others in a study of their own"
        )
    return f"method '{row.method}' has no option '{key}'{nearest(key, known_options(row.method))}"


def extend_study(existing: Study, requested: Study, path: str) -> Study:
    """Study with the rows and seeds of both.

    Raises:
        ConfigError: a row of both has different recipes.
    """
    for name, recipe in requested.rows.items():
        if name not in existing.rows:
            continue
        if difference := first_difference(recipe, existing.rows[name]):
            raise ConfigError(
                f"{path} holds a study with another {difference}; name another directory by --out"
            )
    if existing.baseline != requested.baseline:
        raise ConfigError(
            f"the baseline of {path} is named '{existing.baseline}', not '{requested.baseline}'"
        )
    added = {name: r for name, r in requested.rows.items() if name not in existing.rows}
    seeds = tuple(sorted({*existing.seeds, *requested.seeds}))
    return replace(requested, rows={**existing.rows, **added}, seeds=seeds)
