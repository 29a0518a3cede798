"""The report's tables. Every function returns HTML with all text escaped."""

from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

import numpy as np

from .canvas import stage_colour, variable
from .contents import LAST, Confusion, Contents, Exit, stage
from .words import count, percent, share, shown

MOST_PAIRS = 10


def exits_table(contents: Contents) -> str:
    """Accuracy and cost of every predictor, and the cost's share of the whole network."""
    rows, full = contents.exits, contents.last
    splits = [s for s in ("test", "validation") if any(r.score(s) is not None for r in rows)]
    shares = full is not None and len(rows) > 1
    further = _further(contents)
    heads = ["", *(f"{split} accuracy" for split in splits), *further]
    heads += ["parameters", *["of full"] * shares, "multiply-adds", *["of full"] * shares]
    body = []
    for row in rows:
        cells = [_score(row.score(split)) for split in splits]
        cells += [_score(scores.get(row.name)) for scores in further.values()]
        for cost in ("parameters", "macs"):
            value = getattr(row, cost)
            cells.append(f'<span title="{value}">{count(value)}</span>')
            if full and shares:
                cells.append(_bar(value / max(getattr(full, cost), 1), row))
        kind = ' class="full"' if row.name == LAST and len(rows) > 1 else ""
        numbers = "".join(f'<td class="number">{cell}</td>' for cell in cells)
        body.append(f'<tr{kind}><th scope="row">{_swatch(row)}{_name(row)}</th>{numbers}</tr>')
    return _table(heads, body)


def _further(contents: Contents) -> dict[str, dict[str, float]]:
    """What else than accuracy was judged in the end: {"test top5": {"exit1": …}, …}."""
    split = "test" if "test" in contents.final else "val"
    judged: Mapping[str, Mapping[str, float]] = contents.final.get(split) or {}
    metrics = dict.fromkeys(m for scores in judged.values() for m in scores if m != "accuracy")
    if any("accuracy" not in scores for scores in judged.values()):
        return {}
    label = "test" if split == "test" else "validation"
    return {f"{label} {m}": {p: s[m] for p, s in judged.items() if m in s} for m in metrics}


def _score(value: float | None) -> str:
    return "–" if value is None else percent(value, 2)


def _swatch(row: Exit) -> str:
    colour = variable(stage_colour(stage(row.name)))
    return f'<i class="swatch" style="background:{colour}"></i>'


def _name(row: Exit) -> str:
    return escape(shown(row.name))


def _bar(part: float, row: Exit) -> str:
    colour = variable(stage_colour(stage(row.name)))
    width = f"width:{min(part, 1):.1%};background:{colour}"
    return f'{share(part)}<span class="bar"><i style="{width}"></i></span>'


def pairs_table(confusion: Confusion) -> str:
    """The most frequent mistakes, or "" if there are none."""
    misses = confusion.counts * ~np.eye(len(confusion.classes), dtype=bool)
    body = []
    for flat in np.argsort(-misses, axis=None, kind="stable")[:MOST_PAIRS]:
        true, taken = np.unravel_index(flat, misses.shape)
        times = int(misses[true, taken])
        if not times:
            break
        names = [escape(confusion.classes[i]) for i in (true, taken)]
        part = share(times / max(int(confusion.counts[true].sum()), 1))
        numbers = f'<td class="number">{times}</td><td class="number">{part}</td>'
        body.append(f"<tr><td>{names[0]}</td><td>{names[1]}</td>{numbers}</tr>")
    return _table(["true class", "taken for", "images", "of the class"], body, 2) if body else ""


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
