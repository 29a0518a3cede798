"""Write docs/ledger.md from the rows of the papers' tables.

uv run python scripts/ledger_page.py
"""

from collections.abc import Iterable, Mapping
from itertools import groupby
from pathlib import Path

from selfdistill.reproduction.ledger import ledger
from selfdistill.reproduction.paper_row import FIGURES_SOURCES, PaperRow
from selfdistill.reproduction.reported_value import ReportedValue
from selfdistill.reproduction.reproduce import measured_values

PAGE = Path(__file__).parents[1] / "docs" / "ledger.md"


def page() -> str:
    """The whole page as markdown."""
    rows = list(ledger().values())
    can = sum(not row.not_runnable_reason for row in rows)
    runs = len({row.run_name for row in rows if not row.not_runnable_reason})
    parts = [
        "# The papers' rows",
        "Made by `scripts/ledger_page.py` from `src/selfdistill/reproduction/published/`; do not "
        "edit by hand. [How to make a row again](guide/reproduce.md).",
        f"{len(rows)} rows, of which {can} can be run; as some are the same run, that takes {runs} "
        "different ones. *Ours* is empty until a row was run as published: what was measured at a "
        "smaller size stands in [measurements](measurements.md). Figures of several predictors are "
        "listed shallowest first.",
    ]
    for system, of_system in groupby(rows, key=lambda row: row.name.partition("/")[0]):
        members = list(of_system)
        parts += [f"## {system}", f"Source: {members[0].source}."]
        for table, of_table in groupby(members, key=lambda row: row.name.split("/")[1]):
            parts += section(table, list(of_table))
    return "\n\n".join(part for part in parts if part) + "\n"


def section(table: str, rows: list[PaperRow]) -> list[str]:
    """A table of a paper: its rows, and below them what deviates."""
    first, told = rows[0], {row.name: list(remarks(row)) for row in rows}
    every = [note for note in told[first.name] if all(note in each for each in told.values())]
    notes = list(dict.fromkeys(n for each in told.values() for n in each if n not in every))
    header = ["row", "published", "ours", "notes"]
    again = any(row.same_run_as for row in rows)
    lines = [header + ["the same run as"] * again, ["---"] * (len(header) + again)]
    for row in rows:
        places = sorted(notes.index(note) + 1 for note in told[row.name] if note not in every)
        printed = "; ".join(filter(None, (shown(row.published), row.cost)))
        cells = [f"`{row.name}`", printed, shown(measured_values(row)), ", ".join(map(str, places))]
        lines.append(cells + [f"`{row.same_run_as}`" if row.same_run_as else ""] * again)
    about = [f"{first.metric[0].upper()}{first.metric[1:]}", f"Epoch: {first.epoch}", *every]
    return [
        f"### {table}: {first.title}",
        " ".join(f"{sentence}." for sentence in about),
        "\n".join(f"| {' | '.join(cells)} |" for cells in lines),
        "\n".join(f"{place}. {note}." for place, note in enumerate(notes, 1)),
    ]


def remarks(row: PaperRow) -> Iterable[str]:
    """What there is to know of a row beside its figures."""
    if row.not_runnable_reason:
        yield f"**Cannot be run**: {row.not_runnable_reason}"
    if row.published:
        yield f"Read in {FIGURES_SOURCES[row.figures_source]}"
    yield from (f"{note[0].upper()}{note[1:]}" for note in row.deviations)


def shown(figures: Mapping[str, ReportedValue]) -> str:
    """Figures in a row; a predictor is named where it is one alone, and not the student."""
    if len(figures) == 1:
        ((name, figure),) = figures.items()
        return f"{figure}" if name == "student" else f"{name} {figure}"
    return " · ".join(f"{figure}" for figure in figures.values())


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
    print(PAGE)
