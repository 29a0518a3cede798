"""The method of a recipe that names none, and that its evidence is what was measured."""

import csv
import re
from pathlib import Path

import pytest

from selfdistill.comparison.grid import plan_study
from selfdistill.recipe.default_method import default_method
from selfdistill.recipe.schema import parse
from selfdistill.tasks import TASKS

RESULTS = Path(__file__).parents[2] / "benchmarks" / "results"
PRETRAINED = {"weights": "pretrained", "model": "timm/resnet18"}
CASES = [
    ({}, "frskd"),
    ({"task": "classification"}, "frskd"),
    ({"preset": "strong"}, "ce"),
    (PRETRAINED, "exits"),
    ({"preset": "strong", **PRETRAINED}, "exits"),
    ({"task": "segmentation"}, "ce"),
    ({"task": "segmentation", **PRETRAINED}, "ce"),
    ({"task": "detection"}, "ce"),
    ({"task": "clips"}, "ce"),
    ({"task": "embedding"}, "feature-kd"),
]


@pytest.mark.parametrize(("keys", "method"), CASES)
def test_is_chosen_by_task_and_weights(keys, method):
    assert parse(keys).method == method
    assert parse({**keys, "method": ""}).method == method
    if method != "feature-kd":  # which learns from a teacher alone, and has no baseline
        assert method in plan_study([], (0,), file=keys).rows
    assert parse({"method": "byot", "task": "detection"}).method == "byot"


def test_every_task_has_one():
    assert {default_method({"task": task}).method for task in TASKS} == {
        "frskd",
        "feature-kd",
        "ce",
    }


def measured(table: str, split: str = "test", **cells: str) -> dict[str, str]:
    with open(RESULTS / f"{table}.csv", encoding="utf-8", newline="") as file:
        cells = {"split": split, **cells}
        (line,) = [row for row in csv.DictReader(file) if cells.items() <= row.items()]
    return line


def steps_of(case: str) -> float:
    """Plain steps that a step of a method costs."""
    with open(RESULTS / "speed-methods-resnet18.csv", encoding="utf-8", newline="") as file:
        return {row["case"]: float(row["ratio_median"]) for row in csv.DictReader(file)}[case]


def test_the_figures_are_those_of_the_tables():
    scratch, tuned = (default_method(keys).reason for keys in ({}, PRETRAINED))
    gain = measured("accuracy-cifar100-small-paired", difference="frskd - ce")
    assert float(gain["low"]) > 0
    wanted = ["4,000", f"{float(gain['mean']):.1f}", f"{steps_of('frskd'):.1f}"]
    assert re.findall(r"[\d,.]*\d", scratch) == wanted
    frames, clothes = "-frames", ""
    gains = {
        (ending, row): measured(
            f"accuracy-fine-tuning-methods{ending}-paired", difference=f"{row} - ce"
        )
        for ending in (frames, clothes)
        for row in ("exits", "short", "muse", "frskd", "cskd", "kd")
    }
    assert float(gains[frames, "exits"]["low"]) > 0 > float(gains[clothes, "exits"]["low"])
    others = [
        measured(f"accuracy-fine-tuning-methods{ending}-paired", difference=f"{row} - exits")
        for ending, row in gains
        if row not in ("exits", "short")
    ]
    assert all(float(line["low"]) < 0 for line in others)
    numbers = [
        f"{float(gains[ending, row]['mean']):.1f}"
        for row in ("exits", "short")
        for ending in (frames, clothes)
    ]
    assert re.findall(r"[\d,.]*\d", tuned) == ["600", *numbers]


def gains_over_plain(table: str) -> dict[str, dict[str, str]]:
    with open(RESULTS / f"{table}-paired.csv", encoding="utf-8", newline="") as file:
        lines = {row["difference"]: row for row in csv.DictReader(file) if row["split"] == "test"}
    return {name: row for name, row in lines.items() if name.endswith(" - ce")}


def test_what_is_taken_with_strong_augmentation_follows_the_table():
    strong = default_method({"preset": "strong"})
    gains = gains_over_plain("accuracy-strong")
    above = [name for name, line in gains.items() if float(line["low"]) > 0]
    fresh = gains_over_plain("accuracy-strong-confirmation")
    assert sorted(above) == sorted(fresh)  # what looked like a gain was judged anew
    assert not [name for name, line in fresh.items() if float(line["low"]) > 0]
    best = max(fresh, key=lambda name: float(fresh[name]["mean"]))
    assert best == "mixskd - ce"
    lost = gains[f"{default_method({}).method} - ce"]
    assert float(lost["high"]) < 0
    numbers = float(fresh[best]["mean"]), steps_of("mixskd"), -float(lost["mean"])
    wanted = [str(len(gains)), *(f"{number:.1f}" for number in numbers)]
    assert re.findall(r"[\d,.]*\d", strong.reason) == wanted


def test_the_best_is_not_beyond_noise_above_the_default():
    def values(row):
        line = measured("accuracy-cifar100-small", row=row, exit="student")
        return [float(value) for value in line["values"].split()]

    differences = [a - b for a, b in zip(values("mixskd"), values("frskd"), strict=True)]
    mean = sum(differences) / len(differences)
    deviation = (sum((d - mean) ** 2 for d in differences) / (len(differences) - 1)) ** 0.5
    assert abs(mean) < 2.776 * deviation / len(differences) ** 0.5  # Student's t, 4 degrees
