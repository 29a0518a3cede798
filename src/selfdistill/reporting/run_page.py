"""The page `report.html`: one file, no scripts, nothing loaded from anywhere."""

from pathlib import Path

from ..engine.run_directory import RunDirectory
from . import result_sections as outcome
from . import sample_images as seen
from . import training_sections as training
from .figure_style import palette
from .layout import document
from .run_data import RunData, read
from .summary import cards, lede

_SECTIONS = (
    outcome.exits,
    seen.seen,
    outcome.progress,
    outcome.measured,
    training.information,
    training.losses,
    training.optimizer,
    outcome.calibration,
    outcome.classes,
    outcome.confusion,
    training.recipe,
    training.monitors,
)


def write_report(run: RunDirectory) -> Path:
    """Write `report.html` into a run's directory, from the files that lie there.

    What a run does not have (validation, exits, a confusion matrix) has no section.

    Raises:
        ConfigError: there is no run here.
        ArtifactError: a table in the directory cannot be read.
        ResourceError: the page cannot be written.
    """
    return run.write("report.html", page(read(run)))


def page(contents: RunData) -> str:
    """The whole document."""
    sections = "\n".join(part for section in _SECTIONS if (part := section(contents)))
    header = f'<p class="lede">{lede(contents)}</p>\n{cards(contents)}'
    colors = palette(contents.stages)
    return document("training report", contents.name, header, sections, colors)
