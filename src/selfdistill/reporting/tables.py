"""The report's tables. Every function returns HTML with all text escaped."""

from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

import numpy as np

from ..functional.pareto import pareto_front
from ..tasks.metric_names import shown_metric
from .figure_style import MUTED, stage_color, variable
from .formatting import (
    count,
    file_size,
    metric,
    milliseconds,
    percent,
    share,
    shown,
    thousands,
)
from .layout import pair
from .measured import BASELINE, Against, MeasuredRow, MeasuredTable
from .run_data import (
    LAST,
    ByClass,
    Confusion,
    ExitEntry,
    RunData,
    stage,
)
from .summary import chooser

MOST_PAIRS = 10


def exits_table(contents: RunData) -> str:
    """Score and cost of every predictor, and the cost's share of the whole network."""
    rows, full = contents.exits, contents.last
    splits = [s for s in ("test", "validation") if any(r.score(s) is not None for r in rows)]
    shares = full is not None and len(rows) > 1
    further = _further(contents)
    if contents.calibration:
        errors = {name: table.error for name, table in contents.calibration.items()}
        further[f"{contents.split} calibration error"] = errors
    heads = ["", *(f"{split} {metric(contents)}" for split in splits), *further]
    heads += ["parameters", *["of full"] * shares, "multiply-adds", *["of full"] * shares]
    heads += ["Pareto front"] * (len(rows) > 1)
    marks = pareto_front([row.macs for row in rows], [row.score(chooser(contents)) for row in rows])
    body = []
    for row, mark in zip(rows, marks, strict=True):
        cells = [_score(row.score(split)) for split in splits]
        cells += [_score(scores.get(row.name)) for scores in further.values()]
        for cost in ("parameters", "macs"):
            value = getattr(row, cost)
            cells.append(f'<span title="{value}">{count(value)}</span>')
            if full and shares:
                cells.append(_bar(value / max(getattr(full, cost), 1), row))
        cells += ["✓" if mark else ""] * (len(rows) > 1)
        kind = ' class="full"' if row.name == LAST and len(rows) > 1 else ""
        numbers = "".join(f'<td class="number">{cell}</td>' for cell in cells)
        body.append(f'<tr{kind}><th scope="row">{_swatch(row)}{_name(row)}</th>{numbers}</tr>')
    return _table(heads, body)


def _further(contents: RunData) -> dict[str, dict[str, float]]:
    """What else was judged in the end: {"test top5": {"exit1": …}, …}."""
    split = "test" if "test" in contents.final else "val"
    label = "test" if split == "test" else "validation"
    judged: Mapping[str, Mapping[str, float]] = contents.final.get(split) or {}
    primary_metric = contents.metric
    metrics = dict.fromkeys(m for scores in judged.values() for m in scores if m != primary_metric)
    if any(primary_metric not in scores for scores in judged.values()):
        return {}
    return {
        f"{label} {shown_metric(m)}": {p: s[m] for p, s in judged.items() if m in s}
        for m in metrics
    }


def _score(value: float | None) -> str:
    return "–" if value is None else percent(value, 2)


def measured_table(measured: MeasuredTable) -> str:
    """Size and times of every predictor, and its difference from the baseline."""
    splits = [s for s in ("test", "validation") if any(s in row.against for row in measured.rows)]
    heads = ["", "file", *(_pass(which) for which in measured.passes)]
    heads += [f"{split} against the baseline" for split in splits]
    body = []
    for row in measured.rows:
        cells = ["–" if row.size is None else file_size(row.size)]
        times = [row.times.get(which) for which in measured.passes]
        cells += ["–" if time is None else milliseconds(time) for time in times]
        cells += [_against(row.against.get(split)) for split in splits]
        numbers = "".join(f'<td class="number">{cell}</td>' for cell in cells)
        body.append(f'<tr><th scope="row">{_swatch(row)}{_name(row)}</th>{numbers}</tr>')
    return _table(heads, body)


def _pass(which: tuple[str, int]) -> str:
    device, images = which
    return f"{images} image{'s' * (images > 1)}, {device}"


def _against(found: Against | None) -> str:
    if found is None:
        return "–"
    mean, low, high = (f"{100 * value:+.1f}".replace("-", "−") for value in found)
    noise = found.low <= 0 <= found.high
    word = "within noise" if noise else "better" if found.mean > 0 else "worse"
    return f"{mean} ({low} … {high}) {word}"


def _swatch(row: ExitEntry | MeasuredRow) -> str:
    color = variable(MUTED if row.name == BASELINE else stage_color(stage(row.name)))
    return f'<i class="swatch" style="background:{color}"></i>'


def _name(row: ExitEntry | MeasuredRow) -> str:
    return escape(shown(row.name))


def _bar(part: float, row: ExitEntry) -> str:
    color = variable(stage_color(stage(row.name)))
    width = f"width:{min(part, 1):.1%};background:{color}"
    return f'{share(part)}<span class="bar"><i style="{width}"></i></span>'


_ONE_COLUMN = 12  # classes that a table lists before it is broken in two


def classes_table(found: ByClass) -> str:
    """Every class with its shares in percent and its counts; many classes in two columns."""
    heads = ["class", *map(shown_metric, found.columns)]
    rows = [_class_row(found, place) for place in range(len(found.classes))]
    half = -(-len(rows) // 2) if len(rows) > _ONE_COLUMN else len(rows)
    tables = [_table(heads, part) for part in (rows[:half], rows[half:]) if part]
    return pair(tables)


def _class_row(found: ByClass, place: int) -> str:
    cells = ""
    for name, values in found.columns.items():
        value = values[place]
        shown_value = thousands(int(value)) if name in found.counts else percent(value)
        cells += f'<td class="number">{"–" if value != value else shown_value}</td>'
    return f'<tr><th scope="row">{escape(found.classes[place])}</th>{cells}</tr>'


def pairs_table(confusion: Confusion, of: str = "images") -> str:
    """The most frequent mistakes, or "" if there are none; `of` is what was counted."""
    misses = confusion.counts * ~np.eye(len(confusion.classes), dtype=bool)
    body = []
    for flat in np.argsort(-misses, axis=None, kind="stable")[:MOST_PAIRS]:
        true, taken = np.unravel_index(flat, misses.shape)
        times = int(misses[true, taken])
        if not times:
            break
        names = [escape(confusion.classes[i]) for i in (true, taken)]
        part = share(times / max(int(confusion.counts[true].sum()), 1))
        numbers = f'<td class="number">{thousands(times)}</td><td class="number">{part}</td>'
        body.append(f"<tr><td>{names[0]}</td><td>{names[1]}</td>{numbers}</tr>")
    return _table(["true class", "taken for", of, "of the class"], body, 2) if body else ""


def _table(heads: Sequence[str], body: Sequence[str], words: int = 1) -> str:
    """A table whose first `words` columns are text and the others numbers."""
    kinds = [""] * words + [' class="number"'] * (len(heads) - words)
    cells = "".join(
        f'<th scope="col"{kind}>{escape(head)}</th>'
        for head, kind in zip(heads, kinds, strict=True)
    )
    rows = "\n".join(body)
    table = f"<table><thead><tr>{cells}</tr></thead>\n<tbody>{rows}</tbody></table>"
    return f'<div class="wide">{table}</div>'


def keys_table(values: Mapping[str, Any], caption: str = "") -> str:
    """Names and values; lists with commas, dictionaries as "name value" with commas."""
    title = f"<caption>{escape(caption)}</caption>" if caption else ""
    rows = "\n".join(
        f'<tr><th scope="row">{escape(key)}</th><td>{escape(_plain(value))}</td></tr>'
        for key, value in values.items()
    )
    return f"<table>{title}<tbody>{rows}</tbody></table>"


def _plain(value: Any) -> str:
    if value is None or value in ("", [], {}):
        return "–"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, Mapping):
        return ", ".join(f"{key} {_plain(part)}" for key, part in value.items())
    if isinstance(value, list):
        return ", ".join(_plain(part) for part in value)
    return str(value)
