"""submitit's executors on this machine stand in for a cluster."""

import builtins
import logging
import os
import signal
from contextlib import nullcontext
from pathlib import Path

import pytest

pytest.importorskip("submitit")

from selfdistill.comparison import slurm
from selfdistill.comparison.compare import compare
from selfdistill.comparison.jobs import JobProcess, JobResult, RunJob, SlurmJob
from selfdistill.comparison.slurm import run_on_slurm
from selfdistill.core import ConfigError, ResourceError

KEYS = {"epochs": 1, "device": "cpu", "out": "study", "launcher": "submitit"}


@pytest.fixture(autouse=True)
def quiet():
    logging.disable(logging.WARNING)
    yield
    logging.disable(logging.NOTSET)


# submitit leaves the log files of its debug executor open
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.filterwarnings("ignore:unclosed file:ResourceWarning")
def test_jobs_of_the_debug_executor(pretend, monkeypatch):
    pretend(muse_s1="diverge")
    monkeypatch.setenv("SLURM_NTASKS", "1")
    comparison = compare("muse", seeds="0-1", threads=2, slurm={"cluster": "debug"}, **KEYS)
    assert [(o.row, o.seed, o.code) for o in comparison.failed] == [("muse", 1, 5)]
    assert comparison.failed[0].failure == "the loss is no longer finite at step 3"
    assert [len(r.scores) for r in comparison.summary] == [2, 1]
    assert "threads 2" in Path("study/runs/ce/s0/log.txt").read_text()


@pytest.mark.slow
def test_jobs_in_processes_of_their_own(pretend):
    """The job is pickled, read in another process, and trains by the real command."""
    keys = {
        **KEYS,
        "max_train_images": 64,
        "batch_size": 32,
        "slurm": {"cluster": "local", "timeout_min": 5},
    }
    from selfdistill.comparison import jobs

    assert jobs.PROGRAM.endswith("pretend_train.py")  # here, but not in the jobs' processes
    comparison = compare("ce", seeds="0", **keys)
    assert not comparison.failed
    assert Path("study/runs/ce/s0/metrics.jsonl").exists()


def test_the_time_is_up(pretend, tmp_path):
    """A job is asked to save, and what it hands back goes on."""
    from threading import Thread

    pretend(muse_s0="wait")
    run_dir = tmp_path / "muse" / "s0"
    (tmp_path / "muse.toml").write_text('method = "muse"')
    job = SlurmJob(RunJob("muse", 0, tmp_path / "muse.toml", run_dir), 1)
    delayed = []

    def preempt():
        while not (run_dir / "waiting").exists():
            pass
        os.kill(job.process.process.pid, signal.SIGUSR2)  # SLURM's warning must not kill
        delayed.append(job.checkpoint())

    thread = Thread(target=preempt)
    thread.start()
    result = job()
    thread.join()
    assert result.code == 143
    assert (run_dir / "saved").exists()
    resumed = delayed[0].function()
    assert resumed.code == 0
    assert "going on" in resumed.log


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"cluster": "debug", "timeout_min": "long"}, '--slurm: Parameter "timeout_min" expected'),
        ({"cluster": "debug", "partitoin": "gpu"}, "--slurm: Unknown argument 'partitoin'"),
        ({"cluster": "moon"}, "--slurm: AutoExecutor doesn't know any executor named moon"),
    ],
)
def test_options_that_do_not_fit(tmp_path, options, sentence):
    with pytest.raises(ConfigError) as fault:
        run_on_slurm([], tmp_path, options)
    assert str(fault.value).startswith(sentence)
    assert "\n" not in str(fault.value)


def test_no_slurm_here(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(ResourceError, match="there is no SLURM here"):
        run_on_slurm([], tmp_path, {})


def test_what_sbatch_is_told(tmp_path, monkeypatch):
    """The file that would be submitted has the options in SLURM's words."""
    monkeypatch.setattr("shutil.which", lambda name: name)
    from selfdistill.comparison.slurm import _executor

    options = {"partition": "gpu", "timeout_min": 600, "gpus_per_node": 1, "mem_gb": 32}
    executor = _executor(tmp_path, options, 5)
    text = executor._executor._make_submission_file_text("train", "x")
    for line in ("--partition=gpu", "--time=600", "--gpus-per-node=1", "--mem=32GB"):
        assert f"#SBATCH {line}\n" in text
    assert executor._executor.parameters["array_parallelism"] == 5


def test_without_submitit(tmp_path, monkeypatch):
    real = builtins.__import__

    def without(name, *rest, **more):
        if name == "submitit":
            raise ModuleNotFoundError(name)
        return real(name, *rest, **more)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(ResourceError, match=r"pip install selfdistill\[slurm\]"):
        run_on_slurm([], tmp_path, {})


class Submissions:
    """An executor whose jobs end one after another."""

    def __init__(self):
        self.jobs = []

    def batch(self):
        return nullcontext()

    def submit(self, job):
        self.jobs.append(Submission(first=not self.jobs))
        return self.jobs[-1]


class Submission:
    def __init__(self, first):
        self.first, self.cancelled = first, False

    def done(self):
        return self.first

    def result(self):
        return JobResult(None, 0, "", 0.0)

    def cancel(self, check):
        self.cancelled = True


def test_jobs_do_not_outlive_who_waits_for_them(monkeypatch):
    monkeypatch.setattr(slurm, "POLL_SECONDS", 0)
    executor = Submissions()
    results = slurm._submit_and_wait(executor, [None, None, None], None)
    next(results)
    results.close()  # as when a table cannot be written
    assert [job.cancelled for job in executor.jobs] == [False, True, True]


def test_a_run_that_does_not_stop_in_time_is_queued_again(pretend, tmp_path, monkeypatch):
    monkeypatch.setattr("selfdistill.comparison.jobs._GRACE_SECONDS", 0.2)
    pretend(muse_s0="stuck")
    (tmp_path / "muse.toml").write_text('method = "muse"')
    job = SlurmJob(RunJob("muse", 0, tmp_path / "muse.toml", tmp_path / "muse" / "s0"), 1)
    with JobProcess(job.job, None, OMP_NUM_THREADS="1") as job.process:
        while not (tmp_path / "muse" / "s0" / "waiting").exists():
            assert job.process.poll() is None
        delayed = job.checkpoint()
        assert job.process.process.wait(5) == -signal.SIGKILL
    assert delayed.function().code == 0
