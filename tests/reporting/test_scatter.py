"""Accuracy against cost: which points are drawn, and where their names stand."""

import re
import xml.etree.ElementTree as ET

import numpy as np
import pytest
from made_run import EXITS, made_run, measure

from selfdistill.core import ConfigError
from selfdistill.reporting.charts.scatter import (
    Point,
    _clear_offsets,
    cost_scatter,
    measured_points,
    points,
)
from selfdistill.reporting.charts.style import LETTER, Margins, canvas
from selfdistill.reporting.exit_chart import write_exit_chart
from selfdistill.reporting.run_data import read_run


def test_points_of_a_run_are_its_exits(tmp_path):
    plotted = points(read_run(made_run(tmp_path / "run")), "test")
    assert [(p.name, p.cost) for p in plotted] == [(name, macs) for name, _, macs in EXITS]
    assert all(p.front for p in plotted[:-1])


def test_points_of_what_was_measured(tmp_path):
    measured = read_run(measure(made_run(tmp_path / "run"))).measured
    by_macs = measured_points(measured, "val")
    assert [p.score for p in by_macs] == pytest.approx([0.9, 0.91, 0.92, 0.93, 0.94])
    assert [p.front for p in by_macs] == [True] * 4 + [False]
    by_time = measured_points(measured, "test", ("cuda", 32))
    assert [p.name for p in by_time] == ["exit1", "exit3", "student", "baseline"]
    assert [p.cost for p in by_time] == [2, 2.25, 2.375, 2.5]


@pytest.mark.parametrize("counting", ["actual", "paper"])
def test_the_baseline_stands_among_the_exits_if_counted_alike(tmp_path, counting):
    run = measure(made_run(tmp_path / "run"), counting)
    names = [point.name for point in points(read_run(run), "val")]
    assert ("baseline" in names) == (counting == "actual")


def test_names_stand_clear_of_points_lines_and_each_other():
    _, axes = canvas(480, 300, Margins())
    axes.set_xlim(0, 10)
    axes.set_ylim(0, 10)
    at = np.array([[5.0, 5], [5.4, 5], [5, 5.6]])
    labels = ["one", "two", "three"]
    line = [(5.4, 5.0), (9.0, 5.0)]
    offsets = _clear_offsets(axes, at, labels, [line])
    pixels = axes.transData.transform(at)
    boxes = [
        (x + dx, y + dy - 6, x + dx + len(label) * LETTER, y + dy + 6)
        for (x, y), (dx, dy), label in zip(pixels, offsets, labels, strict=True)
    ]
    for i, (x0, y0, x1, y1) in enumerate(boxes):
        for x, y in [*pixels, *axes.transData.transform(np.linspace(*line, 50))]:
            assert not (x0 < x < x1 and y0 < y < y1)
        for other in boxes[:i]:
            assert x1 < other[0] or x0 > other[2] or y1 < other[1] or y0 > other[3]


def test_a_front_of_nobody_and_points_at_one_place():
    twins = [Point(name, 5.0, 0.5, False) for name in ("exit1", "student")]
    chart = cost_scatter(twins, "cost", "test accuracy")
    assert "exit 1" in chart.body
    assert "student" in chart.body


def test_a_picture_of_its_own_needs_no_page(tmp_path):
    run = measure(made_run(tmp_path / "run"))
    text = write_exit_chart(run).read_text(encoding="utf-8")
    root = ET.fromstring(text)
    assert root.tag == "{http://www.w3.org/2000/svg}svg"
    assert "var(" not in text
    assert not re.search("#010[12]", text)
    assert "#1b1f27" in text  # the ink of the light theme
    assert text == write_exit_chart(run).read_text(encoding="utf-8")


def test_without_validation_images_the_test_images_must_do(tmp_path):
    run = measure(made_run(tmp_path / "run"))
    head, *rows = (run.path / "exits-measured.csv").read_text().splitlines()
    place = head.split(",").index("val_accuracy")
    cells = [row.split(",") for row in rows]
    for row in cells:
        row[place : place + 5] = [""] * 5
    measured = [head, *(",".join(row) for row in cells)]
    run.write("exits-measured.csv", "\n".join(measured).replace("a <CPU>, 2 threads", "") + "\n")
    assert read_run(run).measured.choosing_split == "test"
    assert "Test accuracy against multiply-adds" in write_exit_chart(run).read_text()


def test_no_picture_of_what_was_not_measured(tmp_path):
    with pytest.raises(ConfigError, match=r"no exits of .*run were measured; selfdistill exits"):
        write_exit_chart(made_run(tmp_path / "run"))
