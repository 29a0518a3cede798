"""Trackers get every line of the log once, by the real libraries, without a network."""

import json
import math
import time
from pathlib import Path

import pytest

import selfdistill
from selfdistill.core import ArtifactError, ConfigError, MissingExtraError
from selfdistill.engine.run_directory import RunDirectory
from selfdistill.tracking import Tracker, make_tracker
from selfdistill.tracking.tracker import STATE_FILE, tracked_numbers

STEP = {
    "kind": "step", "step": 20, "epoch": 1, "lr": 0.05, "losses": {"task": 2.0, "soft/1": 0.5},
    "monitors": {"mutual/1": 1.25}, "train": {"accuracy": 0.75}, "grad_norm": 1.5,
    "images_per_second": 100.0,
}  # fmt: skip
EPOCH = {
    "kind": "epoch", "epoch": 1, "step": 20, "losses": {"task": 2.5}, "monitors": {},
    "val": {"student": {"accuracy": 0.5}, "exit1": {"accuracy": 0.25}},
}  # fmt: skip
FINAL = {"kind": "final", "step": 20, "test": {"student": {"accuracy": 0.625}}}
NUMBERS = {
    "train/loss": 2.5, "train/losses/task": 2.0, "train/losses/soft/1": 0.5,
    "train/monitor/mutual/1": 1.25, "train/accuracy": 0.75, "train/epoch": 1.0, "train/lr": 0.05,
    "train/grad_norm": 1.5, "train/images_per_second": 100.0,
}  # fmt: skip
SETTINGS = {"method": "muse", "lr": 0.05, "taps": "auto", "milestones": (1, 2)}
NAMES = ["tensorboard", "wandb", "mlflow", "trackio"]


def test_names_of_the_numbers():
    assert tracked_numbers(STEP) == NUMBERS
    assert tracked_numbers(EPOCH) == {
        "epoch/loss": 2.5, "epoch/number": 2,
        "val/student/accuracy": 0.5, "val/exit1/accuracy": 0.25,
    }  # fmt: skip
    assert tracked_numbers(FINAL) == {"final/test/student/accuracy": 0.625}


@pytest.fixture
def offline(tmp_path, monkeypatch):
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("WANDB_SILENT", "true")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", (tmp_path / "mlflow").as_uri())
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
    monkeypatch.setenv("TRACKIO_DIR", str(tmp_path / "trackio"))
    (tmp_path / "run").mkdir()
    return RunDirectory(tmp_path / "run")


def sent_to_tensorboard(directory):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(directory.path / "tensorboard")).Reload()
    return {
        tag: [(event.step, event.value) for event in events.Scalars(tag)]
        for tag in events.Tags()["scalars"]
    }


def sent_to_wandb(directory):
    from wandb.proto import wandb_internal_pb2

    found = {}
    files = sorted(directory.path.glob("wandb/offline-run-*/*.wandb"))
    assert len({path.stem for path in files}) == 1  # one id
    for path in files:
        for data in leveldb_records(path.read_bytes()[7:]):
            record = wandb_internal_pb2.Record()
            record.ParseFromString(data)
            row = {
                item.key or "/".join(item.nested_key): json.loads(item.value_json)
                for item in record.history.item
            }
            step = row.pop("step", None)
            for name, value in row.items():
                if not name.startswith("_"):
                    found.setdefault(name, []).append((step, value))
    return found


def leveldb_records(data):
    """Records of a log in LevelDB's format, whose first block lacks its file's header of 7 bytes.

    In blocks of 32 KiB lie parts of records: checksum (4), length (2), type (1), bytes; the last
    part of a record has type 1 or 4.
    """
    position, record = 0, b""
    while position < len(data):
        left = 32768 - (position + 7) % 32768
        if left < 7:
            position += left
            continue
        length, kind = (
            int.from_bytes(data[position + 4 : position + 6], "little"),
            data[position + 6],
        )
        record += data[position + 7 : position + 7 + length]
        position += 7 + length
        if kind in (1, 4):
            yield record
            record = b""


def sent_to_mlflow(directory):
    from mlflow import MlflowClient

    client = MlflowClient()
    (experiment,) = (e for e in client.search_experiments() if e.name == "proj")
    (run,) = client.search_runs([experiment.experiment_id])
    assert run.data.params["milestones"] == "(1, 2)"
    assert run.info.status == "FINISHED"
    return {
        name: [(m.step, m.value) for m in client.get_metric_history(run.info.run_id, name)]
        for name in run.data.metrics
    }


def sent_to_trackio(directory):
    from trackio.sqlite_storage import SQLiteStorage

    (run,) = SQLiteStorage.get_runs("proj")
    found = {}
    for row in SQLiteStorage.get_logs("proj", run):
        for name, value in row.items():
            if name not in ("timestamp", "step"):
                found.setdefault(name, []).append((row["step"], value))
    return found


READERS = {"tensorboard": sent_to_tensorboard, "wandb": sent_to_wandb, "mlflow": sent_to_mlflow,
           "trackio": sent_to_trackio}  # fmt: skip


@pytest.mark.parametrize("name", NAMES)
def test_every_line_once_in_one_run_whatever_is_resumed(offline, name):
    pytest.importorskip(name)
    later = STEP | {"step": 40, "lr": 0.025}
    with make_tracker(name, offline, "proj", SETTINGS) as tracker:
        tracker.on_log(STEP, 40)
        tracker.on_epoch(EPOCH)
    kept = json.loads((offline.path / STATE_FILE).read_text())
    assert (kept["tracker"], kept["sent"]) == (name, [20, 1])
    if name == "wandb":
        time.sleep(2.1)  # its folders are named by run and second, of a time before it begins
    with make_tracker(name, offline, "proj", SETTINGS) as tracker:  # from an older checkpoint
        assert tracker.identifier == kept["identifier"] != ""
        for entry in (STEP, EPOCH):
            tracker._send(entry)
        tracker.on_log(later, 40)
        tracker.on_epoch(EPOCH | {"step": 40})
        tracker.on_result(FINAL | {"step": 40})
    found = READERS[name](offline)
    expected = {key: [(20, value), (40, value)] for key, value in NUMBERS.items()}
    expected["train/lr"] = [(20, 0.05), (40, 0.025)]
    for key, pairs in expected.items():
        assert [step for step, _ in found[key]] == [step for step, _ in pairs], key
        for (_, value), (_, wanted) in zip(found[key], pairs, strict=True):
            assert math.isclose(value, wanted, rel_tol=1e-6)
    assert found["val/exit1/accuracy"] == [(20, 0.25), (40, 0.25)]
    assert found["final/test/student/accuracy"] == [(40, 0.625)]


TINY = {
    "data": "digits", "model": "cifar/resnet10_w16", "method": "ce", "device": "cpu", "epochs": 2,
    "max_train_images": 64, "batch_size": 32, "num_workers": 0, "log_every_steps": 1,
}  # fmt: skip


def test_a_run_that_is_tracked(tmp_path):
    pytest.importorskip("tensorboard")
    heard = []

    class Listener(selfdistill.Callback):
        def on_result(self, entry):
            heard.append(entry["kind"])

    run = selfdistill.train(
        out=tmp_path / "run", track="tensorboard", callback=[Listener(), Listener()], **TINY
    )
    assert heard == ["final", "final"]
    directory = RunDirectory(run.path)
    found = sent_to_tensorboard(directory)
    expected: dict = {}
    for entry in directory.metrics():
        for key, value in tracked_numbers(entry).items():
            expected.setdefault(key, []).append((entry["step"], pytest.approx(value, rel=1e-6)))
    assert found == expected
    # what is tracked where does not make another run
    text = (run.path / "recipe.toml").read_text().replace('track = "tensorboard"', 'track = "off"')
    (run.path / "recipe.toml").write_text(text)
    selfdistill.train(out=run.path, resume=True, quiet=True)
    assert sent_to_tensorboard(directory) == expected


class Faulty(Tracker):
    package = "json"  # which is always there

    def __init__(self, directory, fails=""):
        super().__init__(directory, "proj", {})
        self.fails, self.steps = fails, []

    def begin(self, identifier):
        if self.fails == "begin":
            raise RuntimeError("no key\nconfigured")
        return identifier or "new"

    def send(self, numbers, step):
        if self.fails == "send":
            raise OSError("no network")
        self.steps.append(step)

    def end(self, *, complete):
        if self.fails == "end":
            raise ValueError
        self.complete = complete


@pytest.mark.parametrize(("fails", "reason"), [("send", "no network"), ("end", "ValueError")])
def test_a_tracker_that_fails_is_told_of_once_and_ends_no_training(offline, fails, reason):
    told = pytest.warns(UserWarning, match=f"json failed .{reason}.*metrics.jsonl")
    with told as warned, Faulty(offline, fails) as tracker:
        tracker.on_log(STEP, 40)
        tracker.on_epoch(EPOCH)
    assert len(warned) == 1
    assert not tracker.working


def test_a_tracker_that_cannot_begin_is_refused(offline):
    with pytest.raises(ConfigError, match=r"json could not begin a run \(no key\)"):
        Faulty(offline, "begin").__enter__()


def test_a_training_that_is_stopped_ends_the_run_as_one(offline):
    tracker = Faulty(offline)
    with pytest.raises(KeyboardInterrupt), tracker:
        raise KeyboardInterrupt
    assert not tracker.complete


@pytest.mark.parametrize(
    "text",
    [
        "",
        "{",
        "[]",
        '{"tracker": "json"}',
        '{"tracker": "json", "identifier": "x", "sent": 3}',
        '{"tracker": "json", "identifier": "x", "sent": [Infinity, 1]}',
    ],
)
def test_a_damaged_state(offline, text):
    (offline.path / STATE_FILE).write_text(text)
    with pytest.raises(ArtifactError, match=r"tracker\.json is damaged"):
        Faulty(offline).__enter__()


@pytest.mark.parametrize(
    ("place", "name"),
    [("runs/digits-muse-s0", "digits-muse-s0"), ("study/runs/muse/s12", "muse-s12"), (".", None)],
)
def test_runs_of_a_comparison_are_told_apart(tmp_path, monkeypatch, place, name):
    monkeypatch.chdir(tmp_path)
    assert Faulty(RunDirectory(Path(place))).name == (name or tmp_path.name)


def test_another_tracker_begins_anew(offline):
    state = {"tracker": "wandb", "identifier": "x", "sent": [99, 2]}
    (offline.path / STATE_FILE).write_text(json.dumps(state))
    with Faulty(offline) as tracker:
        assert tracker.identifier == "new"
        tracker.on_log(STEP, 40)
    assert tracker.steps == [20]


def test_a_tracker_that_is_not_installed(offline, monkeypatch):
    import sys

    monkeypatch.setitem(sys.modules, "wandb", None)
    with pytest.raises(MissingExtraError, match=r'pip install "selfdistill\[wandb\]"'):
        make_tracker("wandb", offline, "proj", {})
