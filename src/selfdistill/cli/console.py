"""Printing of all commands: the console, tables, numbers, and the table of exits."""

import os
import sys
from typing import TYPE_CHECKING

from rich.table import Table

from ..runs.terminal import console, percent, rank_zero, scored

if TYPE_CHECKING:
    from ..functional.statistics import PairedDifference
    from ..records.exit_scores import ExitScore

_COLORS = {"error": "31", "warning": "33"}


def echo_stderr(kind: str, sentence: str) -> None:
    """Print `error: sentence` or `warning: sentence` on stderr, above a progress bar."""
    sentence = " ".join(sentence.split())
    process = "" if rank_zero() else f" (process {os.environ.get('LOCAL_RANK', '?')})"
    label = f"{kind}{process}:"
    if sys.stderr.isatty():
        label = f"\033[1;{_COLORS[kind]}m{label}\033[0m"
    sys.stderr.write(f"{label} {sentence}\n")


def echo(text: str = "", style: str | None = None) -> None:
    """Print a line, which is never broken in a file."""
    console.print(text, style=style, soft_wrap=True)


def table(*columns: str, title: str | None = None) -> Table:
    """Empty table in the style of this command; a column `>name` is right-aligned."""
    empty = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="bold", title=title)
    for name in columns:
        right = name.startswith(">")
        empty.add_column(name.lstrip(">"), justify="right" if right else "left", no_wrap=right)
    return empty


def amount(number: float) -> str:
    """Number with three digits and a unit: `78.0 k`, `11.2 M`, `1.82 G`."""
    for unit, size in (("G", 1e9), ("M", 1e6), ("k", 1e3)):
        if number >= 0.9995 * size:
            return f"{_three_digits(number / size)} {unit}"
    return f"{number:.0f}"


def difference_text(paired: "PairedDifference") -> str:
    """Points, their interval and what they show: `+1.2 (-0.4 … +2.8) within noise`."""
    low, high = (100 * end for end in paired.interval)
    return f"{100 * paired.mean:+.1f} ({low:+.1f} … {high:+.1f}) {noise_label(paired)}"


def noise_label(paired: "PairedDifference") -> str:
    """`better`, `worse` or `within noise`."""
    if paired.interval.contains(0):
        return "within noise"
    return "better" if paired.mean > 0 else "worse"


def _three_digits(number: float) -> str:
    decimals = 2 if number < 9.995 else 1 if number < 99.95 else 0
    return f"{number:.{decimals}f}"


def show_exits(rows: "list[ExitScore]") -> None:
    """Print the scores and costs of all exits, and the best trade-off."""
    splits = [s for s in ("val", "test") if any(_score(row, s) is not None for row in rows)]
    score_columns = [f">{scored(split, rows[0].metric)}" for split in splits]
    name = "exit" if any(row.predictor.startswith("exit") for row in rows) else "network"
    exits = table(name, *score_columns, ">parameters", ">MACs", ">of the student's")
    student_macs = next(row.macs for row in rows if row.predictor == "student")
    for row in rows:
        scores = [percent(_score(row, split)) for split in splits]
        share = f"{100 * row.macs / max(1, student_macs):.0f} %"
        exits.add_row(row.predictor, *scores, amount(row.parameters), amount(row.macs), share)
    console.print(exits)
    if sentence := tradeoff_sentence(rows):
        echo(f"\n{sentence}")


def _score(row: "ExitScore", split: str) -> float | None:
    return row.val_score if split == "val" else row.test_score


def tradeoff_sentence(rows: "list[ExitScore]") -> str:
    """Sentence about the cheapest exit within a point of the student; "" without exits.

    Chosen on validation images where there are some, so that the test images stay a test.
    """
    from ..export.select_exit import best_tradeoff

    rows = [row for row in rows if row.predictor.startswith(("exit", "student"))]
    split = "test" if any(row.val_score is None for row in rows) else "val"
    scores = {row.predictor: score for row in rows if (score := _score(row, split)) is not None}
    if len(rows) < 2 or len(scores) < len(rows):
        return ""
    student, best = next(r for r in rows if r.predictor == "student"), best_tradeoff(rows, split)
    label = scored(split, student.metric)
    if best.macs >= student.macs:
        return f"Best trade-off: the student; no exit comes within one point of it ({label})."
    gap = 100 * (scores[best.predictor] - scores["student"])
    share = 100 * best.macs / student.macs
    return (
        f"Best trade-off: {best.predictor}, {share:.0f} % of the student's MACs at "
        f"{gap:+.1f} points ({label})."
    )
