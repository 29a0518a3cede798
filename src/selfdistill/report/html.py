"""The page `report.html`: one file, no scripts, nothing loaded from anywhere."""

from html import escape
from importlib.resources import files
from pathlib import Path

from ..engine.run_directory import RunDirectory
from . import outcome, training
from .canvas import palette
from .contents import Contents, read
from .summary import cards, lede

_SECTIONS = (
    outcome.exits,
    outcome.accuracy,
    outcome.measured,
    training.information,
    training.losses,
    training.optimiser,
    outcome.calibration,
    outcome.confusion,
    training.recipe,
    training.monitors,
)


def write_report(run: RunDirectory) -> Path:
    """Write `report.html` into a run's directory, from the files that lie there.

    What a run does not have (validation, exits, a confusion matrix) has no section.

    Raises:
        ConfigError: there is no run here.
        ArtefactError: a table in the directory cannot be read.
        ResourceError: the page cannot be written.
    """
    return run.write("report.html", page(read(run)))


def page(contents: Contents) -> str:
    """The whole document."""
    style = files(__package__).joinpath("style.css").read_text(encoding="utf-8")
    sections = "\n".join(part for section in _SECTIONS if (part := section(contents)))
    name = escape(contents.name)
    return f"""<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{name} – selfdistill</title>
<style>
{style}{_palette(contents.stages)}</style>
</head>
<body>
<header>
<p class="kicker">selfdistill training report</p>
<h1>{name}</h1>
<p class="lede">{lede(contents)}</p>
{cards(contents)}
</header>
<main>
{sections}
</main>
</body>
</html>
"""


def _palette(stages: int) -> str:
    light, dark = (
        " ".join(f"--exit-{i}: {colour};" for i, colour in enumerate(colours, 1))
        for colours in palette(stages).values()
    )
    theme = "@media screen and (prefers-color-scheme: dark)"
    return f":root {{ {light} }}\n{theme} {{ :root {{ {dark} }} }}\n"
