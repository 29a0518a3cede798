"""Predictions from short runs: their interval, what they promise, and what is refused."""

import csv
from pathlib import Path

import numpy as np
import pytest

from selfdistill.comparison import prediction
from selfdistill.comparison.prediction import (
    Verdict,
    calibration,
    distance_outside,
    forecast,
    plan_short_runs,
    predict,
    short_keys,
    widening,
)
from selfdistill.core import ConfigError
from selfdistill.functional.statistics import Interval, mean_difference, t_interval

ROOT = Path(__file__).parents[2]
LOCAL = {"jobs": 4, "threads": 1}


def difference(*gains: float):
    return mean_difference([0.5 + gain for gain in gains], [0.5] * len(gains))


def test_the_interval_is_the_t_interval_and_the_widening():
    short = difference(0.04, 0.05, 0.06)
    found = predict("muse", short, 0.01)
    t = t_interval([0.04, 0.05, 0.06])
    assert found.interval == pytest.approx((t.low - 0.01, t.high + 0.01))
    assert found.verdict is Verdict.HELPS
    assert predict("muse", short, 0.03).verdict is Verdict.CANNOT_TELL
    assert predict("muse", difference(-0.04, -0.05, -0.06), 0.01).verdict is Verdict.DOES_NOT_HELP


@pytest.mark.parametrize("gains", [[0.2], [0.2, 0.21]])
def test_fewer_than_three_pairs_cannot_tell(gains):
    found = predict("muse", difference(*gains), 0)
    assert (found.interval, found.verdict) == (None, Verdict.CANNOT_TELL)


def test_distance_outside():
    interval = Interval(-1, 2)
    assert [distance_outside(interval, x) for x in (-3, -1, 0, 2, 2.5)] == [2, 0, 0, 0, 0.5]


def test_widening_is_a_rank():
    assert widening(list(range(1, 20)), 0.9) == 18  # ⌈20 · 0.9⌉
    assert widening([3.0, 1.0, 2.0], 0.9) == 3.0  # too few: the largest


def test_widening_holds_the_next_one_as_often_as_it_promises():
    draw = np.random.default_rng(0)
    distances = np.abs(draw.standard_normal((4000, 20)))
    held = [row[-1] <= widening(row[:-1].tolist(), 0.9) for row in distances]
    assert np.mean(held) == pytest.approx(0.9, abs=0.015)


def test_what_is_counted_in_epochs_is_shortened():
    recipe = {"epochs": 40, "warmup_epochs": 8.0, "milestones": (20, 30)}
    assert short_keys(recipe) == {
        "epochs": 10,
        "warmup_epochs": 2.0,
        "milestones": [5, 7],
        "val_every_epochs": 10,
        "track": "off",
    }


@pytest.mark.parametrize(
    ("epochs", "milestones", "short"), [(30, (3, 20), [1, 5]), (12, (2, 8, 11), [1, 2, 2])]
)
def test_a_short_run_begins_at_the_first_rate_and_ends_at_the_last(epochs, milestones, short):
    recipe = {"epochs": epochs, "warmup_epochs": 0.0, "milestones": milestones}
    assert short_keys(recipe)["milestones"] == short


@pytest.mark.parametrize(
    ("methods", "keys", "sentence"),
    [
        (["mus"], {}, "did you mean 'muse'"),
        (["ce"], {}, "plain training is what others are compared with"),
        (["muse"], {"epochs": 3}, "give --epochs 4 or more"),
        (["muse"], {"epoch": 8}, "has 'epoch'"),
        (["kd"], {}, "learns from a teacher"),
    ],
)
def test_refused(methods, keys, sentence):
    with pytest.raises(ConfigError, match=sentence):
        plan_short_runs(methods, **keys)


def test_from_short_runs_that_are_thrown_away(pretend, tmp_path):
    runs = plan_short_runs(["muse", "byot"], seed=3, epochs=8, warmup_epochs=2.0, device="cpu")
    assert (runs.seeds, runs.baseline, runs.epochs) == ((3, 4, 5), "ce", 8)
    assert (runs.shorter["epochs"], runs.shorter["warmup_epochs"]) == (2, 0.5)
    assert runs.shorter["track"] == "off"  # no tracker is to list what is thrown away
    found = forecast(runs, **LOCAL)
    assert [p.row for p in found.predictions] == ["muse", "byot"]
    assert all(0.04 < p.short.mean < 0.06 for p in found.predictions)
    assert found.full_seconds == pytest.approx(found.seconds * 4 * 5 / 3)
    assert list(tmp_path.iterdir()) == []


def test_a_run_that_fails_leaves_too_few(pretend):
    pretend(muse_s1="diverge")
    found = forecast(plan_short_runs(["muse"], epochs=4, device="cpu"), **LOCAL)
    assert [(o.row, o.seed) for o in found.failed] == [("muse", 1)]
    assert found.predictions[0].verdict is Verdict.CANNOT_TELL


@pytest.mark.parametrize("weights", ["random", "initial"])
def test_the_constant_is_that_of_the_measurements(weights):
    path = ROOT / "benchmarks" / "results" / "will-it-help-calibration.csv"
    with path.open(encoding="utf-8") as stream:
        lines = [line for line in csv.DictReader(stream) if line["weights"] == weights]
    record = calibration(weights)
    assert record.pairs == len(lines)
    assert {int(line["short_n"]) for line in lines} == {record.seeds}
    outside = widening([float(line["outside"]) for line in lines])
    assert record.coverage == min(0.9, len(lines) / (len(lines) + 1))
    assert record.widening == pytest.approx(outside, abs=0.006)
    assert prediction.FILE.read_text().startswith("#")


def test_the_constant_is_that_of_the_first_weights():
    random = plan_short_runs(["muse"], epochs=8)
    initial = plan_short_runs(["muse"], epochs=8, weights="pretrained", model="timm/resnet18")
    assert random.calibration == calibration("random")
    assert initial.calibration == calibration("initial") != random.calibration
