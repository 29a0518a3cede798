"""The papers' recipes: files of `reproduction/published`, and what rows are put together from.

The recipe of a row SYSTEM/TABLE/NETWORK/ROW has four parts, of which a later one overrides an
earlier one: the recipe of the table, the network, the method (named after the row), and the row.
"""

from functools import cache
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, ValidationError

from .. import methods as _all_methods  # noqa: F401  importing them is what registers them
from ..core import ConfigError, read_regular
from .document import read_toml
from .options import method_classes
from .plugins import import_recipe_plugins

FOLDER = Path(__file__).parents[1] / "reproduction" / "published"


class RowEntry(BaseModel):
    """Row in a file."""

    model_config = ConfigDict(extra="forbid")

    published: list[str] | dict[str, str]
    same_run_as: str = ""
    not_runnable_reason: str = ""
    figures_source: str = ""
    n: int | None = None
    cost: str = ""
    deviations: list[str] = []


class PaperTable(BaseModel):
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
    rows: dict[str, list[str] | RowEntry]


class PaperSystem(BaseModel):
    """File of a system: the parts that recipes are put together from, by name, and its tables."""

    model_config = ConfigDict(extra="forbid")

    order: int = 0
    source: str
    smoke: str = ""
    recipes: dict[str, dict[str, Any]] = {}
    networks: dict[str, dict[str, Any]] = {}
    methods: dict[str, dict[str, dict[str, Any]]] = {}
    tables: dict[str, PaperTable]


def shipped_systems(folder: Path = FOLDER) -> dict[str, PaperSystem]:
    """The papers' systems by name, in the order of the ledger."""
    systems = {file.stem: read_system(file) for file in folder.glob("*.toml")}
    return dict(sorted(systems.items(), key=lambda pair: pair[1].order))


def read_system(file: Path) -> PaperSystem:
    """The system that a file describes.

    Raises:
        ConfigError: it cannot be read, or is not of that form.
    """
    try:
        return PaperSystem.model_validate(read_toml(read_regular(file)))
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


def row_keys(name: str, system: PaperSystem, table: PaperTable) -> dict[str, Any]:
    """Keys of a row's recipe, and `deviations`, `stated` and `not_runnable_reason` of its parts."""
    *_, network, method = name.split("/")
    groups = [table.methods] if isinstance(table.methods, str) else table.methods
    methods = {key: part for group in groups for key, part in system.methods[group].items()}
    row_parts = [system.networks[network], methods[method]]
    recipe = next((p["recipe"] for p in reversed(row_parts) if "recipe" in p), table.recipe)
    if recipe:
        row_parts.insert(0, system.recipes[recipe])
    # a row that names no other precision was trained in this one
    result: dict[str, Any] = {"deviations": [], "options": {}, "precision": "fp32"}
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


@cache
def runnable_rows() -> dict[str, dict[str, Any]]:
    """Keys of each row of the papers that can be trained here, by its name."""
    rows = {}
    for name, system in shipped_systems().items():
        for table_name, table in system.tables.items():
            for row, entry in table.rows.items():
                blocked = isinstance(entry, RowEntry) and (
                    entry.not_runnable_reason or entry.same_run_as
                )
                if table.not_runnable_reason or blocked:
                    continue
                full_name = f"{name}/{table_name}/{row}"
                keys = row_keys(full_name, system, table)
                if not keys.get("not_runnable_reason"):
                    rows[full_name] = keys
    return rows
