"""The report's pictures. Every function returns an `svg` element."""

from collections.abc import Callable, Sequence
from html import escape

import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import FuncFormatter, MaxNLocator

from .canvas import (
    GRID,
    INK,
    MUTED,
    PAGE,
    SMALL,
    TEXT,
    WRONG,
    Margins,
    canvas,
    grid,
    spread,
    stage_colour,
    svg,
)
from .contents import Confusion, Exit
from .curves import Curve, shown

WIDE, NARROW = (540.0, 320.0), (360.0, 230.0)
_LETTER = 6.4  # pixels of a mean letter at size TEXT
Words = Callable[[float], str]


def percent(fraction: float) -> str:
    """0.975 as "97.5 %"."""
    return f"{100 * fraction:.1f} %"


def number(value: float) -> str:
    """Three significant digits, and no trailing zeros."""
    return f"{value:.3g}".replace("e-0", "e-").replace("e+0", "e")


def count(value: float) -> str:
    """1_230_000 as "1.23 M"."""
    for size, unit in ((1e9, " G"), (1e6, " M"), (1e3, " k")):
        if value >= size:
            return f"{value / size:.3g}{unit}"
    return f"{value:.0f}"


def lines(
    curves: Sequence[Curve],
    name: str,
    y_label: str,
    *,
    x_label: str = "step",
    size: tuple[float, float] = WIDE,
    value: Words = number,
    named: bool = True,
    chance: float | None = None,
    zero: bool = False,
) -> str:
    """Curves with their names and last values at their ends.

    Args:
        curves: what to draw, each in the colour of its exit.
        name: of the picture, unique on the page.
        y_label, x_label: of the axes.
        size: width and height in pixels.
        value: writes a value of y.
        named: write names beside the values.
        chance: where knowing nothing would be; a labelled line.
        zero: begin the y axis at zero.
    """
    ends = [f"{shown(c.name)}  {value(c.y[-1])}" if named else value(c.y[-1]) for c in curves]
    right = max(len(end) for end in ends) * _LETTER + 18
    figure, axes = canvas(*size, Margins(right=right))
    grid(axes, x_label, y_label)
    for c in curves:
        style = {"marker": "o", "markersize": 4} if len(c.x) == 1 else {}
        axes.plot(c.x, c.y, color=stage_colour(c.stage), linewidth=1.8, **style)  # type: ignore[arg-type]
    _scale(axes, curves, value, zero=zero, least_top=1.12 * chance if chance else None)
    if chance:
        axes.axhline(chance, color=MUTED, linewidth=1, linestyle=(0, (4, 3)))
        axes.annotate(
            f"chance: 2 ln 2 = {chance:.3f}",
            (axes.get_xlim()[0], chance),
            (2, 4),
            textcoords="offset points",
            color=MUTED,
            fontsize=SMALL,
        )
    _end_labels(axes, curves, ends)
    said = "; ".join(escape(end) for end in ends)
    return svg(figure, name, f"{escape(y_label)} over {x_label}. At the end: {said}")


def _scale(
    axes: Axes, curves: Sequence[Curve], value: Words, *, zero: bool, least_top: float | None
) -> None:
    x, y = (np.concatenate([getattr(c, axis) for c in curves]) for axis in "xy")
    axes.set_xlim(min(x.min(), 0 if len(x) > len(curves) else x.min() - 1), max(x.max(), 1))
    axes.xaxis.set_major_locator(MaxNLocator(5, integer=True))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda at, _: f"{at:,.0f}".replace(",", " ")))
    low, high = y.min(), y.max()
    if not zero and low > 0 and high > 100 * low:
        axes.set_yscale("log")
        axes.yaxis.set_minor_formatter("")
    else:
        room = 0.05 * ((high - low) or abs(high) or 1)
        bottom = 0 if zero and low >= 0 else low - room
        axes.set_ylim(bottom, max(high + room, least_top or -np.inf))
        axes.yaxis.set_major_locator(MaxNLocator(5))
    words = (lambda at: f"{100 * at:g} %") if value is percent else number
    axes.yaxis.set_major_formatter(FuncFormatter(lambda at, _: words(at)))


def _end_labels(axes: Axes, curves: Sequence[Curve], ends: Sequence[str]) -> None:
    """Each label at its curve's end, moved up or down only as far as its neighbours ask."""
    pixels = [axes.transData.transform((c.x[-1], c.y[-1])) for c in curves]
    (_, low), (_, high) = axes.transAxes.transform([(0, 0), (1, 1)])
    places = spread([y for _, y in pixels], TEXT + 2, low + 4, high)
    edge = axes.transAxes.transform((1, 0))[0]
    for c, end, (x, y), place in zip(curves, ends, pixels, places, strict=True):
        colour = stage_colour(c.stage)
        axes.annotate(
            end,
            (x, y),
            (edge + 12, place),
            xycoords="figure pixels",
            textcoords="figure pixels",
            color=colour,
            fontsize=TEXT,
            va="center",
            arrowprops={
                "arrowstyle": "-",
                "color": colour,
                "linewidth": 0.8,
                "alpha": 0.6,
                "shrinkA": 0,
                "shrinkB": 0,
                "relpos": (0, 0.5),
            },
        )


def cost_scatter(rows: Sequence[Exit], split: str, name: str) -> str:
    """Accuracy of every predictor against its multiply-adds, each point labelled."""
    points = [(row, score) for row in rows if (score := row.score(split)) is not None]
    figure, axes = canvas(*WIDE, Margins(right=24))
    grid(axes, "multiply-adds an image", f"{split} accuracy")
    x, y = np.array([[row.macs, score] for row, score in points]).T
    room = (y.max() - y.min()) or 0.01
    axes.set_xlim(0, 1.12 * x.max())
    axes.set_ylim(y.min() - 0.15 * room, y.max() + 0.25 * room)
    axes.xaxis.set_major_locator(MaxNLocator(5))
    axes.yaxis.set_major_locator(MaxNLocator(5))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda at, _: count(at)))
    axes.yaxis.set_major_formatter(FuncFormatter(lambda at, _: f"{100 * at:g} %"))
    order = np.argsort(x)
    axes.plot(x[order], y[order], color=GRID, linewidth=1.5, zorder=1)
    labels = [f"{shown(row.name)}  {percent(score)}" for row, score in points]
    places = _clear_places(axes.transData.transform(np.stack([x, y], 1)), labels, axes)
    for (row, score), label, (dx, dy) in zip(points, labels, places, strict=True):
        colour = stage_colour(_stage_of(row))
        axes.plot(row.macs, score, "o", color=colour, markersize=9, mec=PAGE, mew=1.5, zorder=3)
        axes.annotate(
            label,
            (row.macs, score),
            (dx, dy),
            textcoords="offset points",
            color=colour,
            fontsize=TEXT,
            va="center",
        )
    return svg(figure, name, f"Accuracy against multiply-adds. {escape('; '.join(labels))}")


def _stage_of(row: Exit) -> int | None:
    from .contents import stage

    return stage(row.name)


Box = tuple[float, float, float, float]  # left, bottom, right, top


def _clear_places(
    points: np.ndarray, labels: Sequence[str], axes: Axes
) -> list[tuple[float, float]]:
    """For each point the first place around it where its label hides no point and no label."""
    taken: list[Box] = [(x - 6, y - 6, x + 6, y + 6) for x, y in points]
    (left, bottom), (right, top) = axes.transAxes.transform([(0, 0), (1, 1)])
    chosen = []
    for (x, y), label in zip(points, labels, strict=True):
        width = len(label) * _LETTER
        around = [
            (dx, dy)
            for dy in (0, 15, -15, 30, -30, 45)
            for dx in ((10, -10 - width) if dy == 0 else (-width / 2, 4, -4 - width))
        ]
        boxes = [(x + dx, y + dy - 7, x + dx + width, y + dy + 7) for dx, dy in around]
        clear = [
            i
            for i, (l, b, r, t) in enumerate(boxes)
            if left < l and r < right + 20 and bottom < b and t < top + 4
            if all(r < u[0] or l > u[2] or t < u[1] or b > u[3] for u in taken)
        ]
        best = clear[0] if clear else 0
        taken.append(boxes[best])
        chosen.append(around[best])
    return chosen


def confusion_map(confusion: Confusion, name: str) -> str:
    """The matrix as a heat map, with numbers and names for few classes.

    Hits and misses have hues of their own, and misses their own scale: they are rare and would not
    be seen beside the diagonal. Empty cells are transparent, so the picture fits light and dark.
    """
    size = len(confusion.classes)
    few = size <= FEW
    shares = confusion.counts / np.maximum(confusion.counts.sum(1, keepdims=True), 1)
    hits = np.eye(size, dtype=bool)
    misses = np.where(hits, 0, shares)
    strength = np.where(hits, shares, 0.85 * misses / max(misses.max(), 1e-9))
    names = [c if len(c) <= 14 else f"{c[:13]}…" for c in confusion.classes] if few else []
    margin = max((len(n) for n in names), default=4) * _LETTER + 30
    slanted = few and max(len(n) for n in names) * _LETTER > 440 / size - 4
    top = (0.75 * margin if slanted else 30) + 22
    figure, axes = canvas(440 + margin + 12, 440 + top + 12, Margins(margin, 12, 12, top))
    hues = np.where(hits[..., None], _HIT, _MISS)  # (K, K, 3)
    rgba = np.concatenate([hues, strength[..., None] ** 0.8], -1)
    axes.imshow(rgba, interpolation="none", aspect="auto")
    _name_classes(axes, names, size, slanted=slanted)
    if few:
        for (row, column), value in np.ndenumerate(confusion.counts):
            if value:
                colour = "white" if strength[row, column] > 0.55 else INK
                place = {"ha": "center", "va": "center", "fontsize": TEXT if size <= 12 else 9}
                axes.text(column, row, str(value), color=colour, **place)
    right = percent(float(np.trace(confusion.counts) / max(confusion.counts.sum(), 1)))
    return svg(figure, name, f"Confusion matrix of {size} classes; {right} on the diagonal")


FEW = 20
_HIT, _MISS = (0.18, 0.42, 0.75), (0.80, 0.33, 0.05)


def _name_classes(axes: Axes, names: list[str], size: int, *, slanted: bool) -> None:
    axes.xaxis.tick_top()
    axes.xaxis.set_label_position("top")
    axes.set_xlabel("taken for", color=MUTED, fontsize=SMALL, loc="left")
    axes.set_ylabel("true class", color=MUTED, fontsize=SMALL, loc="top")
    for spine in axes.spines.values():
        spine.set(visible=True, color=GRID)
    if not names:
        axes.xaxis.set_major_locator(MaxNLocator(6, integer=True))
        axes.yaxis.set_major_locator(MaxNLocator(6, integer=True))
        return
    turn = {"rotation": 40, "ha": "left", "rotation_mode": "anchor"} if slanted else {}
    # A class may be called "$x$": names are text, not formulas.
    axes.set_xticks(range(size), names, parse_math=False, color=INK, **turn)
    axes.set_yticks(range(size), names, parse_math=False, color=INK)
    axes.set_xticks(np.arange(size - 1) + 0.5, minor=True)
    axes.set_yticks(np.arange(size - 1) + 0.5, minor=True)
    axes.grid(which="minor", color=GRID, linewidth=0.6)
    axes.tick_params(which="minor", length=0)
