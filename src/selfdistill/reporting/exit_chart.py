"""`exits-measured.svg`: score against cost as a file of its own."""

from pathlib import Path

from ..core import ConfigError
from ..engine.run_directory import RunDirectory
from ..records import split_name
from ..tasks.metric_names import shown_metric
from .charts.scatter import cost_scatter, measured_points
from .charts.standalone import standalone_svg
from .run_data import read_run


def write_exit_chart(run: RunDirectory) -> Path:
    """Draw what `selfdistill exits` measured, for papers and slides.

    Raises:
        ConfigError: there is no run here, its exits were not measured, or matplotlib is missing.
        ArtifactError: a record of the run cannot be read.
        ResourceError: the chart cannot be written.
    """
    data = read_run(run)
    measured = data.measured
    plotted = measured_points(measured, measured.choosing_split) if measured else []
    if not (measured and plotted):
        raise ConfigError(f"no exits of {run.path} were measured; selfdistill exits does it")
    x_label = "multiply-adds an image"
    x_label += ", as MUSE's Table 3 counts" if measured.about["cost"] == "paper" else ""
    y_label = f"{split_name(measured.choosing_split)} {shown_metric(data.metric)}"
    chart = cost_scatter(plotted, "cost", y_label, x_label)
    return run.write("exits-measured.svg", standalone_svg([("", chart)]))
