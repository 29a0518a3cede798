"""Ledger of the rows of the papers' tables.

Each file of `published/` is a system; `add_table_file` adds one of a user's own. The recipe of a
row SYSTEM/TABLE/NETWORK/ROW is put together from four parts, of which a later one overrides an
earlier one: the recipe of the table, the network, the method (named after the row), and the row.
Each part may list `deviations` from what was published, and a `not_runnable_reason`. A row that is
the `same_run_as` another one takes all but its figures from there.
"""

from collections.abc import Mapping
from dataclasses import replace
from fnmatch import fnmatchcase
from functools import cache
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, ValidationError

from .. import methods as _all_methods  # noqa: F401  importing them is what registers them
from ..core import ConfigError, nearest, read_regular
from ..recipe.document import read_toml
from ..recipe.options import method_classes
from ..recipe.plugins import import_recipe_plugins
from .paper_row import PaperRow
from .reported_value import parse_reported_value

FOLDER = Path(__file__).parent / "published"
_ADDED: dict[str, "_System"] = {}


def find_row(name: str) -> PaperRow:
    """Row of this name.

    Raises:
        ConfigError: there is none.
    """
    rows = ledger()
    if name not in rows:
        hint = nearest(name, rows, list_all=False)
        raise ConfigError(f"no table has a row '{name}'{hint}; reproduce --list shows all")
    return rows[name]


def matching_rows(pattern: str = "") -> list[PaperRow]:
    """Row of this name, else those whose name contains it, or matches it if it has a `*`.

    Raises:
        ConfigError: there is none.
    """
    if pattern in ledger():
        return [ledger()[pattern]]
    is_pattern = set(pattern) & set("*?[")
    rows = [
        row
        for name, row in ledger().items()
        if (fnmatchcase(name, pattern) if is_pattern else pattern in name)
    ]
    if not rows:
        hint = nearest(pattern.strip("*"), ledger(), list_all=False)
        raise ConfigError(f"no row matches '{pattern}'{hint}; reproduce --list shows all")
    return rows


def smoke_test_rows() -> dict[str, PaperRow]:
    """Row of each system that its smoke test trains."""
    return {name: find_row(system.smoke) for name, system in _systems().items() if system.smoke}


def add_table_file(path: str | Path) -> None:
    """Add the rows of a file like those of `published/`; its name without .toml is the system's.

    A file that is added again replaces the rows that it had.

    Raises:
        ConfigError: the file cannot be read, is not of that form, or has the name of a paper's
            system.
    """
    file = Path(path)
    if file.stem in _shipped_systems():
        raise ConfigError(f"'{file.stem}' is the name of a paper's system; rename {file}")
    _ADDED[file.stem] = _read_system(file)
    ledger.cache_clear()
    try:
        ledger()
    except ConfigError:
        del _ADDED[file.stem]
        raise


@cache
def ledger() -> dict[str, PaperRow]:
    """All rows by name, in the order of their tables."""
    rows: dict[str, PaperRow] = {}
    for name, system in _systems().items():
        rows |= _system_rows(name, system)
    return {name: _resolved(row, rows) for name, row in rows.items()}


def _shipped_systems() -> dict[str, "_System"]:
    systems = {file.stem: _read_system(file) for file in FOLDER.glob("*.toml")}
    return dict(sorted(systems.items(), key=lambda pair: pair[1].order))


def _systems() -> dict[str, "_System"]:
    """Systems by name."""
    return _shipped_systems() | _ADDED


def _read_system(file: Path) -> "_System":
    try:
        return _System.model_validate(read_toml(read_regular(file)))
    except OSError as error:
        raise ConfigError(f"{file} cannot be read: {error.strerror or error}") from None
    except UnicodeDecodeError:
        raise ConfigError(f"{file} is not a text in UTF-8") from None
    except ValidationError as error:
        first = error.errors()[0]
        key = ".".join(map(str, first["loc"]))
        raise ConfigError(f"{file} is no table of rows: {key}: {first['msg']}") from None
    except ValueError as error:
        raise ConfigError(f"{file} is not valid TOML: {error}") from None


class _Entry(BaseModel):
    """Row in a file."""

    model_config = ConfigDict(extra="forbid")

    published: list[str] | dict[str, str]
    same_run_as: str = ""
    not_runnable_reason: str = ""
    figures_source: str = ""
    n: int | None = None
    cost: str = ""
    deviations: list[str] = []


class _Table(BaseModel):
    """Table in a file; `columns` are the predictors of plain lists, the last ones."""

    model_config = ConfigDict(extra="forbid")

    title: str
    figures_source: Literal["paper", "quoted", "code", "notes"]
    epoch: str
    metric: str = "top-1 accuracy, %"
    score: str = "accuracy"
    n: int | None = None
    recipe: str = ""
    methods: str | list[str] = []
    columns: list[str] = ["student"]
    not_runnable_reason: str = ""
    deviations: list[str] = []
    rows: dict[str, list[str] | _Entry]


class _System(BaseModel):
    """File of a system: the parts that recipes are put together from, by name, and its tables."""

    model_config = ConfigDict(extra="forbid")

    order: int = 0
    source: str
    smoke: str = ""
    recipes: dict[str, dict[str, Any]] = {}
    networks: dict[str, dict[str, Any]] = {}
    methods: dict[str, dict[str, dict[str, Any]]] = {}
    tables: dict[str, _Table]


def _system_rows(system_name: str, system: _System) -> dict[str, PaperRow]:
    """Rows of a system."""
    rows = {}
    for table_name, table in system.tables.items():
        for short, entry in table.rows.items():
            name = f"{system_name}/{table_name}/{short}"
            full_entry = _Entry(published=entry) if isinstance(entry, list) else entry
            try:
                rows[name] = _row(name, system, table, full_entry)
            except (KeyError, ValueError) as error:
                raise ConfigError(f"the row {name} does not fit its file: {error}") from error
    return rows


def _row(name: str, system: _System, table: _Table, entry: _Entry) -> PaperRow:
    reason = entry.not_runnable_reason or table.not_runnable_reason
    keys = {} if entry.same_run_as or reason else _keys(name, system, table)
    deviations, stated = keys.pop("deviations", []), keys.pop("stated", "")
    reason = reason or keys.pop("not_runnable_reason", "")
    figures = entry.published
    if isinstance(figures, list):
        columns = table.columns[len(table.columns) - len(figures) :]
        figures = dict(zip(columns, figures, strict=True))
    n = entry.n or table.n
    return PaperRow(
        name=name,
        source=system.source,
        title=table.title,
        metric=table.metric,
        score=table.score,
        published={name: parse_reported_value(text, n) for name, text in figures.items()},
        figures_source=entry.figures_source or table.figures_source,
        epoch=table.epoch,
        cost=entry.cost,
        stated=stated,
        deviations=(*table.deviations, *deviations, *entry.deviations),
        not_runnable_reason=reason,
        same_run_as=entry.same_run_as,
        keys=keys,
    )


def _keys(name: str, system: _System, table: _Table) -> dict[str, Any]:
    """Keys of a row's recipe, and `deviations`, `stated` and `not_runnable_reason` of its parts."""
    *_, network, method = name.split("/")
    groups = [table.methods] if isinstance(table.methods, str) else table.methods
    methods = {key: part for group in groups for key, part in system.methods[group].items()}
    row_parts = [system.networks[network], methods[method]]
    recipe = next((p["recipe"] for p in reversed(row_parts) if "recipe" in p), table.recipe)
    if recipe:
        row_parts.insert(0, system.recipes[recipe])
    result: dict[str, Any] = {"deviations": [], "options": {}}
    for part in row_parts:
        joined = {key: _joined(result[key], part.get(key)) for key in ("deviations", "options")}
        result |= {key: value for key, value in part.items() if key != "recipe"} | joined
    import_recipe_plugins(result)
    return _without_unused_companions(result)


def _joined(base: Any, added: Any) -> Any:
    if not added:
        return base
    return base + added if isinstance(added, list) else base | added


def _without_unused_companions(keys: dict[str, Any]) -> dict[str, Any]:
    """Keys without the teacher or the peers of a pair of networks that the method does not use."""
    classes = method_classes(keys["method"]) if "method" in keys else {}
    kinds = {method.kind for method in classes.values()}
    companions = {"teacher": "offline", "peers": "online"}
    return {k: v for k, v in keys.items() if k not in companions or companions[k] in kinds}


def _resolved(row: PaperRow, rows: Mapping[str, PaperRow]) -> PaperRow:
    """Row with the row of its teacher, and with the recipe of the row whose run it is."""
    if row.run_name not in rows:
        raise ConfigError(f"{row.name} is the same run as '{row.run_name}', which is no row")
    run = rows[row.run_name]
    teacher = rows.get(run.keys.get("teacher", ""))
    return replace(
        row,
        stated=run.stated,
        deviations=tuple(dict.fromkeys((*run.deviations, *row.deviations))),
        not_runnable_reason=row.not_runnable_reason or run.not_runnable_reason,
        keys=run.keys,
        teacher=teacher and _resolved(teacher, rows),
    )
