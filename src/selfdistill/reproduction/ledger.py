"""The rows of the papers' tables.

Each file of `published/` is a system. A row SYSTEM/TABLE/NETWORK/ROW has its recipe from four
parts, of which a later one overrides an earlier one: the table's recipe, the network, what the row
is called, and the row itself. Each part may name its own `deviations` from what was published, and
`runs`, the reason why it cannot be run here. A row that is the `same` run as another one has all
but its figures from there.
"""

import tomllib
from collections.abc import Iterable, Mapping
from dataclasses import replace
from fnmatch import fnmatchcase
from functools import cache
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict

from .. import methods as _all_methods  # noqa: F401  importing them is what registers them
from ..core import METHODS, ConfigError, nearest
from .paper_row import PaperRow
from .reported_value import parse_reported_value

FOLDER = Path(__file__).parent / "published"


def find(name: str) -> PaperRow:
    """The row of this name.

    Raises:
        ConfigError: there is none.
    """
    rows = ledger()
    if name not in rows:
        hint = nearest(name, rows, list_all=False)
        raise ConfigError(f"no table has a row '{name}'{hint}; reproduce --list shows all")
    return rows[name]


def matching(pattern: str = "") -> list[PaperRow]:
    """The row of this name, else those whose name holds it, or matches it if it has a `*`.

    Raises:
        ConfigError: there is none.
    """
    if pattern in ledger():
        return [ledger()[pattern]]
    wild = set(pattern) & set("*?[")
    found = [
        row
        for name, row in ledger().items()
        if (fnmatchcase(name, pattern) if wild else pattern in name)
    ]
    if not found:
        hint = nearest(pattern.strip("*"), ledger(), list_all=False)
        raise ConfigError(f"no row matches '{pattern}'{hint}; reproduce --list shows all")
    return found


def systems() -> dict[str, PaperRow]:
    """The row of each system that stands for it in a quick check."""
    return {name: find(parts["smoke"]) for name, parts in _files().items()}


@cache
def ledger() -> dict[str, PaperRow]:
    """All rows by name, in the order of their tables."""
    rows: dict[str, PaperRow] = {}
    for system, parts in _files().items():
        rows |= _read(system, parts)
    return {name: _resolved(row, rows) for name, row in rows.items()}


def _files() -> dict[str, dict[str, Any]]:
    """What the files hold, by system."""
    files = FOLDER.glob("*.toml")
    found = {file.stem: tomllib.loads(file.read_text(encoding="utf-8")) for file in files}
    return dict(sorted(found.items(), key=lambda pair: pair[1]["order"]))


class _Entry(BaseModel):
    """A row as it is written."""

    model_config = ConfigDict(extra="forbid")

    published: list[str] | dict[str, str]
    same: str = ""
    runs: str = ""
    evidence: str = ""
    n: int | None = None
    cost: str = ""
    deviations: list[str] = []


class _Table(BaseModel):
    """A table as it is written; `columns` are the predictors of plain lists, the last ones."""

    model_config = ConfigDict(extra="forbid")

    title: str
    evidence: Literal["paper", "quoted", "code", "notes"]
    epoch: str
    metric: str = "top-1 accuracy, %"
    score: str = "accuracy"
    n: int | None = None
    recipe: str = ""
    methods: str | list[str] = []
    columns: list[str] = ["student"]
    runs: str = ""
    deviations: list[str] = []
    rows: dict[str, list[str] | _Entry]


def _read(system: str, parts: Mapping[str, Any]) -> dict[str, PaperRow]:
    """The rows of a system."""
    rows = {}
    for name, values in parts["tables"].items():
        table = _Table.model_validate(values)
        for short, entry in table.rows.items():
            if isinstance(entry, list):
                entry = _Entry(published=entry)
            full = f"{system}/{name}/{short}"
            rows[full] = _row(full, parts, table, entry)
    return rows


def _row(name: str, parts: Mapping[str, Any], table: _Table, entry: _Entry) -> PaperRow:
    bare = entry.same or entry.runs or table.runs
    keys = {} if bare else _keys(name, parts, table)
    told = keys.pop("deviations", [])
    stated, obstacle = keys.pop("stated", ""), keys.pop("runs", "")
    printed = entry.published
    if isinstance(printed, list):
        printed = dict(
            zip(table.columns[len(table.columns) - len(printed) :], printed, strict=True)
        )
    n = entry.n or table.n
    return PaperRow(
        name=name,
        source=parts["source"],
        title=table.title,
        metric=table.metric,
        score=table.score,
        published={who: parse_reported_value(text, n) for who, text in printed.items()},
        evidence=entry.evidence or table.evidence,
        epoch=table.epoch,
        cost=entry.cost,
        stated=stated,
        deviations=(*table.deviations, *told, *entry.deviations),
        obstacle=entry.runs or table.runs or obstacle,
        same=entry.same,
        keys=keys,
    )


def _keys(name: str, parts: Mapping[str, Any], table: _Table) -> dict[str, Any]:
    """The parts of a recipe put together, with their deviations, `stated` and `runs`."""
    *_, network, what = name.split("/")
    groups = [table.methods] if isinstance(table.methods, str) else table.methods
    named = {key: part for group in groups for key, part in parts["methods"][group].items()}
    own = [parts["networks"][network], named[what]]
    base = next((part["recipe"] for part in reversed(own) if "recipe" in part), table.recipe)
    pieces = [parts["recipes"][base], *own] if base else own
    result: dict[str, Any] = {"deviations": [], "options": {}}
    for piece in pieces:
        joined = {key: _joined(result[key], piece.get(key)) for key in ("deviations", "options")}
        result |= {key: value for key, value in piece.items() if key != "recipe"} | joined
    return _with_company_wanted(result)


def _joined(before: Any, more: Any) -> Any:
    if not more:
        return before
    return before + more if isinstance(more, list) else before | more


def _with_company_wanted(keys: dict[str, Any]) -> dict[str, Any]:
    """Without the teacher or the peers of a pair of networks where one is trained alone."""
    kind = METHODS[keys["method"]].kind if "method" in keys else ""
    unwanted = {"offline": "peers", "online": "teacher"}
    drop = [unwanted[kind]] if kind in unwanted else list(unwanted.values())
    return {key: value for key, value in keys.items() if key not in drop}


def _resolved(row: PaperRow, rows: Mapping[str, PaperRow]) -> PaperRow:
    """A row with its teacher's row, and with what it has from the row whose run it is."""
    run = rows[row.run]
    teacher = rows.get(run.keys.get("teacher", ""))
    return replace(
        row,
        stated=run.stated,
        deviations=_once((*run.deviations, *row.deviations)),
        obstacle=row.obstacle or run.obstacle,
        keys=run.keys,
        teacher=teacher and _resolved(teacher, rows),
    )


def _once(texts: Iterable[str]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(texts))
