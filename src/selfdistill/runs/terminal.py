"""The console of commands and of training, and how it writes numbers."""

import os
import sys

from rich.console import Console

_FILE_COLUMNS = 120  # for a file or another program, where no table is cut off
_to_file = not (sys.stdout.isatty() or "COLUMNS" in os.environ)
console = Console(
    markup=False, highlight=False, emoji=False, width=_FILE_COLUMNS if _to_file else None
)

_RANK_VARIABLES = ("RANK", "LOCAL_RANK", "NODE_RANK", "SLURM_PROCID")


def rank_zero() -> bool:
    """Whether this process is the first of its run, which alone prints."""
    return all(os.environ.get(rank, "0") == "0" for rank in _RANK_VARIABLES)


def clock(seconds: float) -> str:
    """Duration as `0:07`, `12:30` or `1:02:03`."""
    minutes, second = divmod(round(seconds), 60)
    hours, minute = divmod(minutes, 60)
    return f"{hours}:{minute:02}:{second:02}" if hours else f"{minute}:{second:02}"


def percent(fraction: float | None) -> str:
    """Fraction as `97.2 %`, None as a dash."""
    return "–" if fraction is None else f"{100 * fraction:.1f} %"


def scored(split: str, metric: str) -> str:
    """Label of a split's score: `val` for accuracy, else `val mIoU`."""
    if metric == "accuracy":
        return split
    from ..tasks.metric_names import shown_metric

    return f"{split} {shown_metric(metric)}"
