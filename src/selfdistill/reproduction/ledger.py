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

from ..core import ConfigError, nearest
from ..recipe.published import (
    FOLDER,
    PaperSystem,
    PaperTable,
    RowEntry,
    read_system,
    row_keys,
    shipped_systems,
)
from .paper_row import PaperRow
from .reported_value import parse_reported_value

_ADDED: dict[str, PaperSystem] = {}


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
    if file.stem in shipped_systems(FOLDER):
        raise ConfigError(f"'{file.stem}' is the name of a paper's system; rename {file}")
    _ADDED[file.stem] = read_system(file)
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


def _systems() -> dict[str, PaperSystem]:
    """Systems by name."""
    return shipped_systems(FOLDER) | _ADDED


def _system_rows(system_name: str, system: PaperSystem) -> dict[str, PaperRow]:
    """Rows of a system."""
    rows = {}
    for table_name, table in system.tables.items():
        for short, entry in table.rows.items():
            name = f"{system_name}/{table_name}/{short}"
            full_entry = RowEntry(published=entry) if isinstance(entry, list) else entry
            try:
                rows[name] = _row(name, system, table, full_entry)
            except (KeyError, ValueError) as error:
                raise ConfigError(f"the row {name} does not fit its file: {error}") from error
    return rows


def _row(name: str, system: PaperSystem, table: PaperTable, entry: RowEntry) -> PaperRow:
    reason = entry.not_runnable_reason or table.not_runnable_reason
    keys = {} if entry.same_run_as or reason else row_keys(name, system, table)
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
