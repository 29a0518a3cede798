"""What all commands print with: the console, numbers, and the table of exits."""

import os
import sys
from typing import TYPE_CHECKING

from rich.console import Console
from rich.table import Table

if TYPE_CHECKING:
    from ..records.exit_scores import ExitScore

_FILE = 120  # columns of what goes to a file or another program: no table is cut off there
_wide = not (sys.stdout.isatty() or "COLUMNS" in os.environ)
console = Console(markup=False, highlight=False, emoji=False, width=_FILE if _wide else None)

_COLORS = {"error": "31", "warning": "33"}
_RANKS = ("RANK", "LOCAL_RANK", "NODE_RANK", "SLURM_PROCID")


def rank_zero() -> bool:
    """Whether this process is the one of its run that talks."""
    return all(os.environ.get(rank, "0") == "0" for rank in _RANKS)


def echo_stderr(kind: str, sentence: str) -> None:
    """`error: sentence` on stderr, or `warning:`; above the progress bar if there is one."""
    sentence = " ".join(sentence.split())
    who = "" if rank_zero() else f" (process {os.environ.get('LOCAL_RANK', '?')})"
    label = f"{kind}{who}:"
    if sys.stderr.isatty():
        label = f"\033[1;{_COLORS[kind]}m{label}\033[0m"
    sys.stderr.write(f"{label} {sentence}\n")


def echo(text: str = "", style: str | None = None) -> None:
    """A line that is never broken when it goes to a file."""
    console.print(text, style=style, soft_wrap=True)


def table(*columns: str, title: str | None = None) -> Table:
    """An empty table in the style of this command; a column `>name` is flush right."""
    made = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="bold", title=title)
    for name in columns:
        right = name.startswith(">")
        made.add_column(name.lstrip(">"), justify="right" if right else "left", no_wrap=right)
    return made


def amount(number: float) -> str:
    """Three digits and a unit: `78.0 k`, `11.2 M`, `1.82 G`."""
    for unit, size in (("G", 1e9), ("M", 1e6), ("k", 1e3)):
        if number >= 0.9995 * size:
            return f"{_three(number / size)} {unit}"
    return f"{number:.0f}"


def _three(number: float) -> str:
    decimals = 2 if number < 9.995 else 1 if number < 99.95 else 0
    return f"{number:.{decimals}f}"


def clock(seconds: float) -> str:
    """A length of time, `0:07`, `12:30` or `1:02:03`."""
    minutes, second = divmod(round(seconds), 60)
    hours, minute = divmod(minutes, 60)
    return f"{hours}:{minute:02}:{second:02}" if hours else f"{minute}:{second:02}"


def percent(share: float | None) -> str:
    """`97.2 %`, or a dash where there is nothing."""
    return "–" if share is None else f"{100 * share:.1f} %"


def scored(split: str, metric: str) -> str:
    """A split's score as columns and lines call it: `val` for accuracy, else `val mIoU`."""
    if metric == "accuracy":
        return split
    from ..tasks.metric_names import shown_metric

    return f"{split} {shown_metric(metric)}"


def show_exits(rows: "list[ExitScore]") -> None:
    """The table of exits, and which of them is the best bargain."""
    val = any(row.val_score is not None for row in rows)
    test = any(row.test_score is not None for row in rows)
    splits = [name for name, there in (("val", val), ("test", test)) if there]
    parts = [f">{scored(split, rows[0].metric)}" for split in splits]
    exits = any(row.predictor.startswith("exit") for row in rows)
    made = table(
        "exit" if exits else "network", *parts, ">parameters", ">MACs", ">of the student's"
    )
    whole = next(row.macs for row in rows if row.predictor == "student")
    for row in rows:
        scores = [percent(row.val_score)] * val + [percent(row.test_score)] * test
        costs = (
            amount(row.parameters),
            amount(row.macs),
            f"{100 * row.macs / max(1, whole):.0f} %",
        )
        made.add_row(row.predictor, *scores, *costs)
    console.print(made)
    if sentence := tradeoff_sentence(rows):
        echo(f"\n{sentence}")


def tradeoff_sentence(rows: "list[ExitScore]") -> str:
    """The cheapest exit within a point of the student, in a sentence; nothing if it is alone.

    Chosen on validation images where there are some, so that the test images stay a test.
    """
    rows = [row for row in rows if row.predictor.startswith(("exit", "student"))]
    part = "test" if any(row.val_score is None for row in rows) else "val"
    scores = {row.predictor: getattr(row, f"{part}_score") for row in rows}
    if len(rows) < 2 or None in scores.values():
        return ""
    from ..export.select_exit import best_tradeoff as cheapest

    student, best = next(row for row in rows if row.predictor == "student"), cheapest(rows, part)
    if best.macs >= student.macs:
        judged = scored(part, student.metric)
        return f"Best trade-off: the student; no exit comes within one point of it ({judged})."
    gap = 100 * (scores[best.predictor] - scores["student"])
    share = 100 * best.macs / student.macs
    return (
        f"Best trade-off: {best.predictor}, {share:.0f} % of the student's MACs at "
        f"{gap:+.1f} points ({scored(part, student.metric)})."
    )
