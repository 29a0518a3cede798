"""A complete diagnosis: predictions by a clock of our own, sizes by a real run, and no trace."""

import itertools
import warnings
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from lightning_fabric import Fabric

import selfdistill
from selfdistill.core import ConfigError, DivergenceError, ResourceError, RunBusyError
from selfdistill.diagnosis import DiagnosisCallback, diagnose
from selfdistill.diagnosis import training_cost as cost
from selfdistill.diagnosis.training_cost import check_disk, measure_training_cost
from selfdistill.models import build
from selfdistill.recipe.build_run import build_run
from selfdistill.recipe.loaders import train_loader
from selfdistill.recipe.schema import parse
from selfdistill.recipe.teacher_cache import describe_kept_outputs

TINY = {"max_train_images": 64, "batch_size": 16, "model": "cifar/resnet8", "val_fraction": 0.05}


class Recorder(DiagnosisCallback):
    """Records the sections."""

    def __init__(self):
        self.sections = []

    def on_section(self, section):
        self.sections.append(section)


def recipe(**keys):
    return parse({**TINY, **keys})


def small(seed=0):
    torch.manual_seed(seed)
    return build("cifar/resnet8", num_classes=10, in_channels=1)


def files(place: Path):
    return {p: p.stat().st_mtime_ns for p in place.rglob("*")}


def test_it_leaves_no_trace(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    model, teacher = small(), small(1)
    before = {n: t.clone() for n, t in model.state_dict().items()}
    torch.manual_seed(5)
    state = torch.get_rng_state()
    recorder = Recorder()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        report = diagnose(
            recipe(method="kd", teacher="Own", cache_views=4),
            model=model,
            teacher=teacher,
            seconds=0,
            callback=recorder,
        )
    assert files(tmp_path) == {}
    assert torch.equal(torch.get_rng_state(), state)
    assert all(torch.equal(t, before[n]) for n, t in model.state_dict().items())
    assert all(p.requires_grad for p in teacher.parameters())
    assert model.training
    assert recorder.sections == report.sections
    assert [type(section).__name__ for section in report.sections] == [
        "DataReport",
        "NetworkReport",
        "TeacherReport",
        "FirstStepReport",
        "TrainingCost",
    ]
    assert report.teacher.classes.startswith("not known")
    count = TINY["max_train_images"]
    size = 4 * count * (10 * 4 + 4) / 1000  # ten scores and the number of the image
    assert report.teacher.kept == f"{size:.1f} kB in teacher-cache, 4 views of {count} images"
    assert report.warnings == [*report.data.warnings, *report.teacher.warnings]
    assert "about chance" in report.warnings[-1]


@pytest.mark.parametrize(
    ("method", "views", "kept"),
    [("at", 4, "nothing: method 'at' reads more of its teacher than outputs"), ("kd", 0, "")],
)
def test_what_would_not_be_kept(method, views, kept):
    chosen = recipe(method=method, teacher="Own", cache_views=views)
    components = build_run(chosen, model=small(), teacher=small(1))
    fabric = Fabric(accelerator="cpu", devices=1)
    batches = train_loader(chosen, components.data, components.method, fabric)
    text = describe_kept_outputs(components, batches)
    assert text.startswith(kept)
    assert bool(text) == bool(kept)


def measured(monkeypatch, tick=1.0, seconds=1e9, **keys):
    """The cost by a clock that moves on by `tick` whenever it is looked at."""
    parts = build_run(recipe(**keys))
    fabric = Fabric(accelerator="cpu", devices=1)
    batches = train_loader(parts.recipe, parts.data, parts.method, fabric)
    monkeypatch.setattr(cost, "_MAX_STEPS", 5)
    ticks = itertools.count(step=tick)
    return measure_training_cost(
        parts, fabric, batches, Path("runs/x"), seconds=seconds, clock=lambda: next(ticks)
    )


def test_predictions_follow_from_what_was_measured(monkeypatch):
    # each step and the one pass over the 94 validation images take a tick
    result = measured(monkeypatch, method="ce", epochs=10, val_every_epochs=4, val_fraction=0.065)
    speed = result.speed
    assert (speed.first_step, speed.step, speed.fastest, speed.slowest) == (1, 1, 1, 1)
    assert speed.num_steps == 5
    assert speed.image == pytest.approx(1 / 93)
    assert (result.steps, result.epochs, result.processes) == (4, 10, 1)
    assert speed.epoch == pytest.approx(4 + 1)
    assert speed.run == pytest.approx(10 * 4 + 3 * 1 + (93 + 360) / 93)


def test_measuring_stops_when_the_time_is_up(monkeypatch):
    monkeypatch.setattr(cost, "_MIN_STEPS", 2)
    assert measured(monkeypatch, seconds=0, method="ce").speed.num_steps == 2


@pytest.mark.parametrize("keys", [{"method": "muse", "ema_decay": 0.9}, {"optimizer": "adamw"}])
def test_sizes_are_those_of_a_real_checkpoint(keys, tmp_path, monkeypatch):
    result = measured(monkeypatch, **keys)
    run = selfdistill.train(out=tmp_path / "run", epochs=1, **TINY, **keys)
    newest = max((run.path / "checkpoints").glob("step-*"))
    real = {file.stem: file.stat().st_size for file in newest.glob("*.safetensors")}
    header = 0.1 * sum(real.values())
    assert result.checkpoint_bytes == pytest.approx(sum(real.values()), abs=header)
    assert result.optimizer_bytes == pytest.approx(real["optimizer"], abs=header)
    assert result.memory.peak > 0


def test_a_full_disk_and_a_full_memory_are_told(monkeypatch):
    result = measured(monkeypatch, method="ce")
    check_disk(result, Path("runs/x"))
    with pytest.raises(ResourceError, match=r"runs/x take 2 MB and 1 MB are free"):
        check_disk(
            replace(result, free_disk_bytes=1_000_000, checkpoint_bytes=600_000), Path("runs/x")
        )
    assert cost._memory_warnings(result.memory) == []
    (sentence,) = cost._memory_warnings(replace(result.memory, peak=95, total=100))
    assert sentence.startswith("95% of the memory is taken; lower --batch-size")
    assert cost._memory_warnings(replace(result.memory, total=None)) == []


def test_a_place_that_is_taken_or_cannot_be_one(tmp_path):
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "recipe.toml").touch()
    with pytest.raises(RunBusyError, match="holds a run already"):
        diagnose(recipe(), out=tmp_path / "run")
    with pytest.raises(ResourceError, match="cannot be written"):
        diagnose(recipe(), out=tmp_path / "run" / "recipe.toml" / "deeper")


def test_faults_come_when_the_training_would_meet_them():
    recorder = Recorder()
    with pytest.raises(ConfigError, match="learns from a teacher"):
        diagnose(recipe(method="kd"), callback=recorder)
    assert [type(section).__name__ for section in recorder.sections] == ["DataReport"]
    with pytest.raises(
        DivergenceError, match="start a new run with --precision fp32, a lower --lr"
    ):
        diagnose(recipe(method="ce", lr=1e30), callback=recorder, seconds=0)
    assert type(recorder.sections[-1]).__name__ == "FirstStepReport"


def test_of_several_processes_the_first_is_measured():
    report = diagnose(recipe(method="ce", devices=2), seconds=0)
    assert report.cost.processes == 2
    assert report.first_step.images == 8
    assert report.cost.steps == 4
    with pytest.raises(ConfigError, match="does not divide"):
        diagnose(recipe(method="ce", devices=3))


def test_the_arguments_are_those_of_train(tmp_path):
    (tmp_path / "start.toml").write_text('method = "ce"\nepochs = 7\n')
    by_file = diagnose(tmp_path / "start.toml", epochs=2, seconds=0, **TINY)
    by_recipe = diagnose(recipe(method="ce", epochs=7), epochs=2, seconds=0)
    by_keys = diagnose(method="ce", data="digits", epochs=2, seconds=0, **TINY)
    assert by_file.first_step == by_recipe.first_step == by_keys.first_step
    assert by_file.cost.epochs == by_recipe.cost.epochs == by_keys.cost.epochs == 2
