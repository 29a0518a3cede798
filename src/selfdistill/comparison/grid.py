"""What a study compares: rows and seeds that share one recipe, and a baseline by the same."""

import tomllib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from ..core import METHODS, ArtifactError, ConfigError, nearest
from ..recipe.options import is_baseline, known_options, method_classes
from ..recipe.schema import Recipe, parse, write
from ..runs.paths import first_difference
from ..tasks import TASKS
from .rows import ComparisonRow

# Whom a student learns from belongs to its method, and not to what all rows share.
COMPANY = {
    "offline": ("teacher", "teacher_model", "teacher_taps"),
    "online": ("peers",),
}
_OF_A_ROW = ("method", "options", *COMPANY["offline"], *COMPANY["online"])
_ELSEWHERE = {"seed": "--seeds", "method": "--methods", "options": "--set KEY=VALUE"}
VERSION = 1


@dataclass(frozen=True)
class Study:
    """A grid of runs.

    Attributes:
        rows: {name: its recipe}, the baseline first; all the same but for the method and its own.
        seeds: each row is trained with each of them.
        exit: the predictor that is compared with the baseline's student.
    """

    rows: dict[str, Recipe]
    seeds: tuple[int, ...]
    exit: str = "student"

    @property
    def baseline(self) -> str:
        """The name of the row that all others are compared with."""
        return next(iter(self.rows))

    @property
    def metric(self) -> str:
        """What the runs are judged by: the primary_metric of their task."""
        return TASKS[self.rows[self.baseline].task].primary_metric

    @property
    def cells(self) -> list[tuple[str, int]]:
        """All (row, seed), seed by seed, so that a study that is cut short compares what it has."""
        return [(row, seed) for seed in self.seeds for row in self.rows]

    @property
    def shared(self) -> dict[str, Any]:
        """What all rows have in common; what is none is left out."""
        recipe = tomllib.loads(write(self.rows[self.baseline]))
        return {k: v for k, v in recipe.items() if k not in (*_OF_A_ROW, "seed")}

    def recipe(self, row: str, seed: int) -> Recipe:
        """The recipe of one run."""
        return self.rows[row].model_copy(update={"seed": seed})

    def plain(self) -> dict[str, Any]:
        """The study as `from_plain` takes it; what is none is left out, as in a recipe."""
        rows = {
            name: {k: v for k, v in tomllib.loads(write(recipe)).items() if k in _said(recipe)}
            for name, recipe in self.rows.items()
        }
        about = {"version": VERSION, "seeds": list(self.seeds), "exit": self.exit}
        return {**about, "recipe": self.shared, "rows": rows}


def _said(recipe: Recipe) -> set[str]:
    """The keys of a row that have something to say."""
    kinds = {cls.kind for cls in method_classes(recipe.method).values()}
    return {"method", "options", *(k for kind in kinds for k in COMPANY.get(kind, ()))}


def from_plain(plain: Mapping[str, Any], where: str) -> Study:
    """The study that `plain` described.

    Args:
        plain: its dictionary.
        where: the file that it comes from, for the error's sentence.

    Raises:
        ArtifactError: it is none, or a newer version wrote it.
    """
    if plain.get("version", 0) > VERSION:
        raise ArtifactError(f"{where} was written by a newer version of selfdistill; update it")
    try:
        rows = {str(name): parse({**plain["recipe"], **row}) for name, row in plain["rows"].items()}
        seeds = tuple(int(seed) for seed in plain["seeds"])
        study = Study(rows, seeds, str(plain["exit"]))
        if not (seeds and is_baseline(rows[study.baseline].method)):
            raise ValueError("it has no seeds or does not begin with a baseline")
    except (KeyError, TypeError, ValueError, AttributeError, StopIteration) as error:
        raise ArtifactError(f"{where} describes no study: {error}") from None
    return study


def plan(
    rows: Sequence[ComparisonRow],
    seeds: tuple[int, ...],
    *,
    file: Mapping[str, Any] | None = None,
    keys: Mapping[str, Any] | None = None,
    exit: str = "student",
) -> Study:
    """The study that rows, seeds and a recipe make; the baseline is put first, or added.

    Args:
        rows: what to compare; none is the method of the recipe.
        seeds: of weights, order and augmentation.
        file: a recipe file's content. Its method's options go to the rows of that method, its
            teacher and peers to the methods that have a use for them.
        keys: put over it; what is no key of a recipe goes to every method that has such an option.
        exit: the predictor to compare.

    Raises:
        ConfigError: a row twice, a key that nobody knows, or a value that does not fit.
    """
    file, keys = file or {}, keys or {}
    for key in keys:
        if key in _ELSEWHERE:
            raise ConfigError(f"'{key}' of a comparison is given by {_ELSEWHERE[key]}")
    taken = str(file.get("method", Recipe.model_fields["method"].default))
    rows = _with_baseline(rows or [ComparisonRow(taken, taken, {})])
    _check_known(keys, rows)
    return Study({row.name: _recipe(row, file, taken, keys) for row in rows}, seeds, exit)


def _with_baseline(rows: Iterable[ComparisonRow]) -> list[ComparisonRow]:
    rows = sorted(rows, key=lambda row: not is_baseline(row.method))
    if not is_baseline(rows[0].method):
        plain = next(name for name in METHODS if METHODS[name].kind == "baseline")
        rows.insert(0, ComparisonRow(plain, plain, {}))
    for place, row in enumerate(rows):
        for other in rows[:place]:
            if row.name.lower() == other.name.lower():  # folders that some systems hold the same
                raise ConfigError(
                    f"two rows are named '{row.name}'; leave one out, or name it: "
                    f"another={row.method}"
                )
            if row[1:] == other[1:]:
                raise ConfigError(f"rows '{other.name}' and '{row.name}' are the same")
    return rows


def _check_known(keys: Mapping[str, Any], rows: Sequence[ComparisonRow]) -> None:
    """Raises `ConfigError` for a key that neither a recipe nor any row's method has a use for."""
    options = {option for row in rows for option in known_options(row.method)}
    known = [*options, *(k for k in Recipe.model_fields if k not in _ELSEWHERE)]
    for key in keys:
        if key not in known:
            raise ConfigError(
                f"neither a recipe nor any of the rows has '{key}'{nearest(key, known)}"
            )
    kinds = {cls.kind for row in rows for cls in method_classes(row.method).values()}
    for kind, company in COMPANY.items():
        if company[0] in keys and kind not in kinds:
            others = ", ".join(name for name in METHODS if METHODS[name].kind == kind)
            raise ConfigError(f"no row has a use for {company[0]}; these methods have: {others}")


def _recipe(
    row: ComparisonRow, file: Mapping[str, Any], taken: str, keys: Mapping[str, Any]
) -> Recipe:
    """The recipe of a row: the file's, what was given for all, what was given for it, in order."""
    kinds = {cls.kind for cls in method_classes(row.method).values()}
    company = {key for kind in kinds for key in COMPANY.get(kind, ())}
    known = known_options(row.method)
    for key in row.own:
        if key not in known and key not in company:
            raise ConfigError(_unfit(row, key))
    common = {**file, **keys}
    values = {
        k: v
        for k, v in common.items()
        if (k in company or k not in _OF_A_ROW) and (k not in keys or k in Recipe.model_fields)
    }
    inherited = file.get("options", {}) if row.method == taken else {}
    if not isinstance(inherited, Mapping):
        raise ConfigError(f"[options] of a recipe is a table, not {inherited!r}")
    options = {**inherited, **{k: v for k, v in keys.items() if k in known}}
    options |= {k: v for k, v in row.own.items() if k in known}
    own = {k: _listed(k, v) for k, v in row.own.items() if k not in known}
    recipe = parse({**values, **own, "method": row.method, "options": options, "seed": 0})
    if "offline" in kinds and not recipe.teacher:
        raise ConfigError(
            f"row '{row.name}' learns from a teacher: give --teacher with a run, a weights file "
            "or timm/NAME (in Python: teacher=)"
        )
    return recipe


def _listed(key: str, value: Any) -> Any:
    return [value] if key in COMPANY["online"] else value


def _unfit(row: ComparisonRow, key: str) -> str:
    if key in Recipe.model_fields:
        return (
            f"'{key}' of row '{row.name}' belongs to the recipe that all rows share; give it to "
            "all of them, or compare the others in a study of their own"
        )
    return f"method '{row.method}' has no option '{key}'{nearest(key, known_options(row.method))}"


def extended(held: Study, asked: Study, where: str) -> Study:
    """The study that is there and what is asked for, together.

    Raises:
        ConfigError: a row of both is not the same.
    """
    for name, recipe in asked.rows.items():
        if name not in held.rows:
            continue
        if other := first_difference(recipe, held.rows[name]):
            raise ConfigError(
                f"{where} holds a study with another {other}; name another directory by --out"
            )
    if held.baseline != asked.baseline:
        raise ConfigError(
            f"the baseline of {where} is named '{held.baseline}', not '{asked.baseline}'"
        )
    rows = {**held.rows, **{n: r for n, r in asked.rows.items() if n not in held.rows}}
    seeds = tuple(sorted({*held.seeds, *asked.seeds}))
    return replace(asked, rows=rows, seeds=seeds)
