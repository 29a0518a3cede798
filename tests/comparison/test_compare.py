"""A study from its first call to the page; the runs are pretended."""

import csv
import os
import signal
import threading
import time
from pathlib import Path

import pytest
from filelock import FileLock

import selfdistill
from selfdistill.comparison.compare import ComparisonCallback, compare
from selfdistill.core import ArtifactError, ConfigError, DataError, RunBusyError
from selfdistill.functional.statistics import Significance
from selfdistill.signals import Interrupted

KEYS = {"epochs": 1, "device": "cpu", "out": "study", "jobs": 3}


class Recorder(ComparisonCallback):
    """Records its events."""

    def __init__(self):
        self.runs, self.messages, self.starts = [], [], []

    def on_start(self, study, path, num_done, launcher):
        self.starts.append((num_done, launcher))

    def on_run_end(self, outcome, seconds):
        self.runs.append((outcome.row, outcome.seed, bool(outcome.exits)))

    def on_message(self, text):
        self.messages.append(text)


def rows(name: str) -> list[dict[str, str]]:
    with Path("study", name).open() as stream:
        return list(csv.DictReader(stream))


def test_from_one_call_to_the_tables(pretend):
    recorder = Recorder()
    comparison = selfdistill.compare("muse,byot", seeds="0-2", callback=recorder, **KEYS)
    assert len(recorder.runs) == 9
    assert recorder.starts[0][0] == 0
    assert recorder.starts[0][1].startswith("3 at a time, ")
    assert [r.row for r in comparison.summary] == ["ce", "muse", "byot"]
    assert not comparison.failed
    muse = comparison.summary[1]
    assert muse.split == "test"
    assert muse.difference.n == 3
    assert muse.difference.significance is Significance.SIGNIFICANT
    assert len(rows("results.csv")) == 3 * 2 * (1 + 2 + 2)
    for line in rows("summary.csv"):
        scores = [
            float(r["accuracy"])
            for r in rows("results.csv")
            if all(r[key] == line[key] for key in ("row", "predictor", "split"))
        ]
        assert float(line["mean"]) == pytest.approx(sum(scores) / 3, abs=1e-5)
        assert line["n"] == "3"
    page = Path("study/study.html").read_text()
    assert 'href="runs/muse/s2/report.html"' in page
    assert "beyond noise" in page


def test_the_same_call_reads_what_is_there(pretend):
    first, recorder = compare("muse", seeds=[0, 1], **KEYS), Recorder()
    stamp = Path("study/runs/muse/s0/exits.csv").stat().st_mtime_ns
    again = compare("muse", seeds=[0, 1], callback=recorder, **KEYS)
    assert recorder.runs == []
    assert recorder.starts[0][0] == 4
    assert again == first == compare(out="study", resume=True)
    assert Path("study/runs/muse/s0/exits.csv").stat().st_mtime_ns == stamp


def test_more_rows_and_seeds_join(pretend):
    compare("muse", seeds="0", **KEYS)
    recorder = Recorder()
    comparison = compare("byot", seeds="0-1", callback=recorder, **KEYS)
    made = sorted((row, seed) for row, seed, _ in recorder.runs)
    assert made == [("byot", 0), ("byot", 1), ("ce", 1), ("muse", 1)]
    assert list(comparison.study.rows) == ["ce", "muse", "byot"]


def test_another_recipe_is_refused_and_changes_nothing(pretend):
    compare("muse", seeds="0", **KEYS)
    before = Path("study/study.toml").read_text()
    with pytest.raises(ConfigError, match=r"another epochs \(1, not 2\); name another directory"):
        compare("muse", seeds="0", **KEYS | {"epochs": 2})
    assert Path("study/study.toml").read_text() == before


def test_a_run_of_another_recipe_is_refused(pretend):
    compare("muse", seeds="0", **KEYS)
    recipe = Path("study/runs/muse/s0/recipe.toml")
    recipe.write_text(recipe.read_text().replace("epochs = 1", "epochs = 9"))
    with pytest.raises(ConfigError, match="holds a run with another epochs"):
        compare(out="study", resume=True)


def test_a_run_that_fails_takes_no_other_with_it(pretend):
    pretend(muse_s1="diverge", byot_s0="crash")
    comparison = compare("muse,byot", seeds="0-1", **KEYS)
    assert [(o.row, o.seed, o.code) for o in comparison.failed] == [("byot", 0, -9), ("muse", 1, 5)]
    crashed, diverged = comparison.failed
    assert diverged.failure == "the loss is no longer finite at step 3"
    assert "SIGKILL, perhaps because the memory was full" in crashed.failure
    assert [len(r.scores) for r in comparison.summary] == [2, 1, 1]
    page = Path("study/study.html").read_text()
    assert "muse, seed 1 failed: the loss is no longer finite at step 3" in page
    assert "2 of 6 runs failed" in page
    pretend()
    assert not compare(out="study", resume=True).failed
    assert "going on" in Path("study/runs/muse/s1/log.txt").read_text()


def test_each_warning_is_a_message_once(pretend):
    pretend(muse_s0="warn", muse_s1="warn")
    recorder = Recorder()
    compare("muse", seeds="0-1", callback=recorder, **KEYS)
    assert [w.partition(": ")[2] for w in recorder.messages] == ["the teacher guesses"]


def stop_when(path: Path, number: int) -> threading.Thread:
    """A signal to this process once a run waits there."""

    def watch():
        while not path.exists():
            time.sleep(0.02)
        os.kill(os.getpid(), number)

    thread = threading.Thread(target=watch)
    thread.start()
    return thread


@pytest.mark.parametrize(
    "number", [signal.SIGTERM, pytest.param(signal.SIGINT, marks=pytest.mark.slow)]
)
def test_a_signal_lets_the_runs_save(pretend, number):
    pretend(muse_s0="wait", ce_s1="wait")
    thread = stop_when(Path("study/runs/muse/s0/waiting"), number)
    with pytest.raises(Interrupted) as stop:
        compare("muse", seeds="0-1", **KEYS | {"jobs": 2})
    thread.join()
    assert stop.value.number == number
    assert Path("study/runs/muse/s0/saved").exists()
    assert not Path("study/runs/muse/s1").exists()
    pretend()
    comparison = compare(out="study", resume=True)
    assert not comparison.failed
    assert [len(r.scores) for r in comparison.summary] == [2, 2]


def test_the_exit_to_compare(pretend):
    comparison = compare("muse", seeds="0-2", exit="exit1", **KEYS)
    base, early = comparison.summary
    assert (base.predictor, early.predictor) == ("student", "exit1")
    assert early.difference.mean < -0.2
    assert compare(out="study", resume=True).summary == comparison.summary
    assert compare(out="study", resume=True, exit="student").summary[1].predictor == "student"


def test_an_exit_that_nobody_has(pretend):
    with pytest.raises(ConfigError, match=r"no row has a predictor 'exit9' \(did you mean 'exit1'"):
        compare("muse", seeds="0", exit="exit9", **KEYS)
    assert rows("results.csv")
    with pytest.raises(ConfigError, match="--resume with another --exit"):
        compare(out="study", resume=True)
    assert compare(out="study", resume=True, exit="1").summary[1].predictor == "exit1"
    with pytest.raises(ConfigError, match="no row has a predictor 'exit9'"):
        compare(out="study", resume=True, exit="9")
    assert compare(out="study", resume=True).summary[1].predictor == "exit1"  # as before


def test_one_seed_says_nothing(pretend):
    comparison = compare("muse", seeds="3", **KEYS)
    assert comparison.summary[1].difference.significance is Significance.UNDERPOWERED
    assert "too few seeds to say" in Path("study/study.html").read_text()


def test_the_baseline_alone(pretend):
    comparison = compare("ce", seeds="0-1", **KEYS)
    assert [r.row for r in comparison.summary] == ["ce"]


def test_threads_are_handed_on(pretend):
    compare("ce", seeds="0", threads=3, **KEYS)
    assert "threads 3" in Path("study/runs/ce/s0/log.txt").read_text()


def test_default_path(pretend):
    Path("my/flowers.v2").mkdir(parents=True)
    comparison = compare("ce", seeds="0", epochs=1, data="folder:my/flowers.v2")
    assert comparison.path == Path("studies/flowers-resnet10_w16")


@pytest.mark.parametrize(
    ("keys", "sentence"),
    [
        ({"jobs": 0}, "--jobs is 1 or more, not 0"),
        ({"threads": -1}, "--threads is 1 or more, not -1"),
        ({"launcher": "submitt"}, "did you mean 'submitit'"),
        ({"slurm": {"partition": "gpu"}}, "--slurm is for --launcher submitit"),
        ({"resume": True}, "study holds no study"),
        ({"resume": True, "out": None}, "which study is to be resumed"),
        ({"recipe": "nowhere.toml"}, "nowhere.toml cannot be read"),
        ({"data": "folder:nowhere"}, "there is no folder 'nowhere'"),
        ({"weights": "nowhere.pth"}, "there is no weights file 'nowhere.pth'"),
        ({"methods": "muse,kd", "teacher": "runs/nowhere"}, "there is no teacher 'runs/nowhere'"),
    ],
)
def test_refused_before_anything_is_written(pretend, keys, sentence):
    with pytest.raises((ConfigError, DataError), match=sentence):
        compare(**{"methods": "muse", **KEYS, **keys})
    assert not Path("study").exists()


def test_what_a_further_row_lacks_is_told_before_it_trains(pretend):
    compare("muse", seeds="0", **KEYS)
    with pytest.raises(ConfigError, match="there is no teacher 'runs/nowhere'"):
        compare("muse,kd", seeds="0", teacher="runs/nowhere", **KEYS)
    assert compare(out="study", resume=True).study.rows.keys() == {"ce", "muse"}


def test_something_else_is_left_alone(pretend):
    Path("study").mkdir()
    Path("study/thesis.tex").touch()
    with pytest.raises(ConfigError, match="is something else and no study"):
        compare("muse", **KEYS)
    assert [p.name for p in Path("study").iterdir()] == ["thesis.tex"]
    Path("file").touch()
    with pytest.raises(ConfigError, match="is something else"):
        compare("muse", **KEYS | {"out": "file"})


def test_a_broken_description(pretend):
    compare("ce", seeds="0", **KEYS)
    Path("study/study.toml").write_text("rows = ")
    with pytest.raises(ArtifactError, match="is not TOML"):
        compare("ce", seeds="0", **KEYS)
    Path("study/study.toml").write_text("rows = " + "[" * 20_000)
    with pytest.raises(ArtifactError, match="is not TOML"):
        compare("ce", seeds="0", **KEYS)
    Path("study/study.toml").unlink()
    os.mkfifo("study/study.toml")  # would be waited for
    with pytest.raises(ArtifactError, match="is no regular file"):
        compare("ce", seeds="0", **KEYS)


def test_two_at_once(pretend):
    Path("study").mkdir()
    with FileLock("study/.lock"), pytest.raises(RunBusyError, match="another process works on"):
        compare("muse", **KEYS)


def test_a_run_that_somebody_still_trains(pretend, monkeypatch):
    pretend(muse_s0="diverge")
    compare("muse", seeds="0", **KEYS)
    monkeypatch.setattr("selfdistill.comparison.directory._GRACE_SECONDS", 0)
    with FileLock("study/runs/muse/s0/.lock"), pytest.raises(RunBusyError, match="is training in"):
        compare(out="study", resume=True)


def test_a_study_that_was_killed_while_it_was_described_is_one(pretend, monkeypatch):
    def killed(*_):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("selfdistill.comparison.directory.write", killed)
        with pytest.raises(KeyboardInterrupt):
            compare("muse", seeds="0", **KEYS)
    assert not compare(out="study", resume=True).failed
