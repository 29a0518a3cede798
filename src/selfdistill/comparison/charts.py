"""The charts of a comparison: every seed's score, the mean, and its intervals."""

from collections.abc import Sequence

from ..functional.statistics import MIN_PAIRS, Interval, Significance, t_interval
from ..reporting.charts.lanes import Lane, lanes_chart
from ..reporting.charts.style import INK, MUTED, Chart, stage_color
from ..reporting.formatting import percent
from .results import RowResult, format_points

ACCENT = stage_color(1)


def scores(rows: Sequence[RowResult], name: str, title: str) -> Chart:
    """A lane for each row: its seeds, their mean and its t interval; the first is the baseline."""
    lanes = []
    for i, row in enumerate(rows):
        values = [100 * score for score in row.scores.values()]
        interval = None
        if len(values) >= MIN_PAIRS:
            low, high = t_interval(values)
            interval = Interval(max(0, low), min(100, high))
        color = INK if i else MUTED
        lanes.append(Lane(row.row, percent(row.mean, 2), values, color, interval))
    return lanes_chart(lanes, name, f"{title} of every seed.")


def differences(rows: Sequence[RowResult], name: str) -> Chart:
    """A lane for each row with a difference: its seeds, their mean and both intervals."""
    base, lanes = rows[0].scores, []
    for row in rows[1:]:
        if difference := row.difference:
            pairs = [100 * (s - base[seed]) for seed, s in row.scores.items() if seed in base]
            t, bootstrap = (
                Interval(100 * i.low, 100 * i.high) if i and difference.n >= MIN_PAIRS else None
                for i in (difference.t, difference.bootstrap)
            )
            color = ACCENT if difference.significance is Significance.SIGNIFICANT else MUTED
            lanes.append(Lane(row.row, format_points(difference.mean), pairs, color, t, bootstrap))
    description = "Difference of every seed to the baseline."
    return lanes_chart(lanes, name, description, differences=True)
