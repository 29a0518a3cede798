"""Charts as an SVG file of its own, for papers and slides."""

import re
from collections.abc import Sequence

from ..rendering import render, stylesheet
from .style import Chart, palette

_MARGIN, _TITLE = 24.0, 28.0  # pixels between two charts, and of a title


def standalone_svg(charts: Sequence[tuple[str, Chart | None]], columns: int = 1) -> str:
    """Charts with their titles in a grid, in the colors of the light theme.

    Args:
        charts: title and chart, row by row; None leaves its cell empty. All have one size.
        columns: of the grid.
    """
    size = next(chart for _, chart in charts if chart)
    title = _TITLE if any(text for text, _ in charts) else 0.0
    width, height = size.width + (_MARGIN if columns > 1 else 0), size.height + title
    cells = [
        (i % columns * width, i // columns * height, text, chart)
        for i, (text, chart) in enumerate(charts)
        if chart
    ]
    rows = -(-len(charts) // columns)
    text = render(
        "charts.svg.j2", width=columns * width, height=rows * height, cells=cells, title=title
    )
    colors: dict[str, str] = {}
    for name, color in re.findall(r"--(\w+): (#\w+);", stylesheet()):
        colors.setdefault(name, color)  # the dark theme comes second
    exits = [int(number) for number in re.findall(r"var\(--exit-(\d+)\)", text)]
    for number, color in enumerate(palette(max(exits, default=0))["light"], 1):
        colors[f"exit-{number}"] = color
    return re.sub(r"var\(--([\w-]+)\)", lambda match: colors[match[1]], text)
