"""`exits-measured.svg`: accuracy against cost as a file of its own."""

import re
from importlib.resources import files
from pathlib import Path

from ..core import ConfigError
from ..engine.run_directory import RunDirectory
from .figure_style import palette
from .formatting import metric
from .run_data import RunData, read
from .scatter import cost_scatter, measured_points


def write_picture(run: RunDirectory) -> Path:
    """Draw what `selfdistill exits` measured, for papers and slides.

    Raises:
        ConfigError: there is no run here, or its exits were not measured.
        ArtifactError: a table in the directory cannot be read.
        ResourceError: the picture cannot be written.
    """
    contents = read(run)
    measured = contents.measured
    found = measured_points(measured, measured.split) if measured else []
    if not (measured and found):
        raise ConfigError(f"no exits of {run.path} were measured; selfdistill exits does it")
    x_label = "multiply-adds an image"
    x_label += ", as MUSE's Table 3 counts" if measured.about["cost"] == "paper" else ""
    drawn = cost_scatter(found, "cost", f"{measured.split} {metric(contents)}", x_label)
    return run.write("exits-measured.svg", _alone(drawn, contents))


def _alone(svg: str, contents: RunData) -> str:
    """A picture of the page in the light theme's colors, with a name space and a background."""
    style = files(__package__).joinpath("style.css").read_text(encoding="utf-8")
    colors: dict[str, str] = {}
    for name, color in re.findall(r"--(\w+): (#\w+);", style):
        colors.setdefault(name, color)  # the dark theme comes second
    for number, color in enumerate(palette(contents.stages)["light"], 1):
        colors[f"exit-{number}"] = color
    svg = re.sub(r"var\(--([\w-]+)\)", lambda found: colors[found[1]], svg)
    spaces = 'xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink"'
    ground = f'<rect width="100%" height="100%" fill="{colors["page"]}"/>'
    letters = "<style>text { font-family: system-ui, sans-serif !important; }</style>"
    opening, rest = svg.split(">", 1)
    return f"{opening.replace('<svg', f'<svg {spaces}', 1)}>{letters}{ground}{rest}\n"
