"""A made-up run directory, as training would leave it, for tests and for looking at the page."""

import csv
import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import tomli_w

from selfdistill.engine.run_directory import RUN_FORMAT, RunDirectory
from selfdistill.records.training_data import TrainingData

EXITS = (("exit1", 152_000, 61_200_000), ("exit2", 683_000, 120_900_000))
EXITS += (("exit3", 2_790_000, 182_000_000), ("student", 11_173_962, 256_400_000))
OPTIONS = {
    "combine": "add",
    "information_weight": 0.1,
    "estimator": "jsd",
    "soft_weight": 0.3,
    "critic": "separable",
}


def made_run(
    path: Path,
    *,
    epochs: int = 3,
    steps: int = 40,
    classes: Sequence[str] = tuple("0123456789"),
    exits: Sequence[tuple[str, int, int]] = EXITS,
    combine: str = "add",
    images: int = 360,
    seed: int = 0,
) -> RunDirectory:
    """Everything that a finished run holds; `steps` lines of kind "step" over all epochs."""
    run, rng = RunDirectory(path), np.random.default_rng(seed)
    path.mkdir(parents=True)
    recipe = {"method": "muse", "model": "cifar/resnet18", "data": "digits", "epochs": epochs}
    recipe |= {"lr": 0.05, "batch_size": 64, "optimizer": "sgd", "nesterov": True, "seed": 0}
    run.write("recipe.toml", tomli_w.dumps({**recipe, "options": {**OPTIONS, "combine": combine}}))
    where = {
        "format": RUN_FORMAT,
        "command": "selfdistill train --data digits",
        "commit": None,
        "python": "3.12.1",
    }
    where |= {"packages": {"torch": "2.10.0"}, "system": "Linux", "cores": 2, "gpus": []}
    run.write("environment.json", json.dumps(where))
    run.write("data.json", training_data("classification", classes).to_json())
    names, total = [name for name, *_ in exits], 22 * epochs
    levels = {name: 0.985 - 0.022 * (len(names) - i) ** 1.2 for i, name in enumerate(names, 1)}
    levels["student"] = round(0.978 * images) / images
    lines = [
        _step(int(at), total, len(names) - 1, combine, rng) for at in np.linspace(1, total, steps)
    ]
    for epoch in range(epochs):
        rise = 1 - np.exp(-5 * (epoch + 1) / epochs)
        val = {
            n: {"accuracy": round(a * rise - rng.uniform(0, 0.02), 4)} for n, a in levels.items()
        }
        lines.append(
            {**lines[-1], "kind": "epoch", "epoch": epoch, "step": 22 * (epoch + 1), "val": val}
        )
    test = {n: {"accuracy": a, "top5": min(1.0, a + 0.02)} for n, a in levels.items()}
    lines.append({"kind": "final", "step": total, "val": val, "test": test})
    run.write("metrics.jsonl", "".join(json.dumps(line) + "\n" for line in lines))
    _tables(path, exits, levels, classes, images, rng)
    return run


def training_data(task: str, classes: Sequence[str]) -> TrainingData:
    """Of gray images."""
    return TrainingData("digits", task, list(classes), (0.5,), (0.5,))


def _step(at: int, total: int, shallow: int, combine: str, rng: np.random.Generator) -> dict:
    """One line: losses that fall, deeper exits faster."""
    done, losses, monitors = at / total, {}, {}
    losses["task"] = 2.3 * np.exp(-6 * done) + 0.05 * rng.uniform(1, 1.3)
    for i in range(1, shallow + 1):
        fall = np.exp(-(2 + 3 * i) * done)
        losses[f"task/{i}"] = (2.3 * fall + 0.2 / i) * 0.7 * rng.uniform(1, 1.1)
        losses[f"soft/{i}"] = (0.9 * fall + 0.1 / i) * 0.3 * rng.uniform(1, 1.2)
        mutual = 0.25 / i + (1.386 - 0.25 / i) * fall * rng.uniform(0.95, 1)
        own = 0.1 / i + (1.38 - 0.1 / i) * fall**1.3 * rng.uniform(0.95, 1)
        monitors |= {f"mutual/{i}": mutual, f"self/{i}": own, f"score/mutual/{i}": 9 * (1 - fall)}
        terms = {f"mutual/{i}": 0.1 * mutual, f"self/{i}": 0.1 * own}
        losses |= terms if combine == "add" else {f"product/{i}": 0.1 * mutual * own}
    entry = {
        "kind": "step",
        "step": at,
        "epoch": at // 22,
        "lr": 0.025 * (1 + np.cos(np.pi * done)),
    }
    entry |= {"losses": losses, "monitors": monitors, "train": {"accuracy": 0.5}}
    return entry | {"grad_norm": rng.uniform(0.5, 2), "images_per_second": rng.uniform(800, 950)}


def _tables(path, exits, levels, classes, images, rng) -> None:
    with (path / "exits.csv").open("w", newline="") as stream:
        writer = csv.writer(stream, lineterminator="\n")
        writer.writerow(["predictor", "parameters", "macs", "val_accuracy", "test_accuracy"])
        for name, parameters, macs in exits:
            writer.writerow([name, parameters, macs, round(levels[name] - 0.004, 4), levels[name]])
    size = len(classes)
    truth = rng.integers(0, size, images)
    wrong = np.arange(images) >= round(levels["student"] * images)
    near = (truth + rng.integers(1, 4, images)) % size
    counts = np.zeros((size, size), int)
    np.add.at(counts, (truth, np.where(wrong, near, truth)), 1)
    with (path / "confusion.csv").open("w", newline="") as stream:
        csv.writer(stream, lineterminator="\n").writerows([classes, *counts.tolist()])
    _write(path / "calibration.csv", _bins(levels, images))


def _bins(levels, images) -> list[list]:
    """Four bins of 0.25: one empty, one of few images, two of which the last is too sure."""
    rows = [["split", "predictor", "low", "high", "images", "confidence", "accuracy"]]
    for name in levels:
        rows.append(["test", name, 0, 0.25, 0, "", ""])
        rows.append(["test", name, 0.25, 0.5, 4, 0.4, 0.25])
        rows.append(["test", name, 0.5, 0.75, images // 4, 0.6, 0.7])
        rows.append(["test", name, 0.75, 1, images - images // 4 - 4, 0.95, 0.9])
    return rows


MEASURED = ["predictor", "front", "parameters", "macs", "bytes", "cpu_ms_1", "cuda_ms_32"]
MEASURED += [
    f"{split}_{what}"
    for split in ("val", "test")
    for what in ("accuracy", "ece", "difference", "low", "high")
]
MEASURED += ["cost", "epoch", "threads", "machine", "torch", "baseline", "notes"]


def measure(run: RunDirectory, counting: str = "actual", notes: str = "") -> RunDirectory:
    """Write what `selfdistill exits` would, with a baseline; nothing could be cut at exit 2."""
    about = [counting, 3, 2, "a <CPU>, 2 threads", "2.10.0", "runs/plain", notes]
    rows = [MEASURED]
    for place, (name, parameters, macs) in enumerate((*EXITS, ("baseline", *EXITS[-1][1:]))):
        own = ["", "", ""] if name == "exit2" else [4 * parameters, 0.5 + place, 2 + place / 8]
        found = [name, int(name != "baseline"), parameters, macs, *own]
        for score in (0.90, 0.92):
            gap = 0.01 * (place - 1)
            against = ["", "", ""] if name == "baseline" else [gap, gap - 0.015, gap + 0.015]
            found += [score + place / 100, 0.02, *against]
        rows.append([*found, *about])
    _write(run.path / "exits-measured.csv", rows)
    return run


def _write(path: Path, rows: list[list]) -> None:
    with path.open("w", newline="") as stream:
        csv.writer(stream, lineterminator="\n").writerows(rows)


def on_another_task(
    run: RunDirectory, task: str, metric: str, classes: Sequence[str], columns: Sequence[str]
) -> RunDirectory:
    """Make the run one of a task with a score of its own, and with a table of its classes.

    Args:
        run: as `made_run` left it.
        task, metric: names.
        classes: of the table.
        columns: of the table; the last is a count, and the last class has nothing but a count of 0.
    """
    run.write("data.json", training_data(task, classes).to_json())
    table = (run.path / "exits.csv").read_text()
    run.write("exits.csv", table.replace("accuracy", metric))
    lines = run.metrics()
    for line in lines:
        for split in ("val", "test"):
            for scores in line.get(split, {}).values():
                scores[metric] = scores["accuracy"]
                scores["accuracy"] = min(1.0, scores["accuracy"] + 0.01)
    run.write("metrics.jsonl", "".join(json.dumps(line) + "\n" for line in lines))
    rows = [
        [name, *([0.25 + place / 1000] * (len(columns) - 1)), 1000 * (place + 1)]
        for place, name in enumerate(classes)
    ]
    rows[-1][1:] = [*[""] * (len(columns) - 1), 0]
    _write(run.path / "classes.csv", [["class", *columns], *rows])
    (run.path / "calibration.csv").unlink()
    return run
