"""A finished training is never lost to what is only shown of it."""

import json

import pytest

import selfdistill
from selfdistill.core import ResourceError
from selfdistill.engine.run_directory import RunDirectory
from selfdistill.runs.extension import machine_difference

TINY = {"epochs": 1, "max_train_images": 32, "batch_size": 16, "model": "cifar/resnet8",
        "method": "ce"}  # fmt: skip


@pytest.mark.parametrize(
    ("function", "what"),
    [
        ("finalize.write_pictures", "the pictures"),
        ("finalize._write_report", "the report"),
        ("finalize._write_details", "the tables of classes"),
    ],
)
@pytest.mark.parametrize("fault", [UnicodeEncodeError("utf-8", "\udcff", 0, 1, "no"), KeyError()])
def test_a_page_that_cannot_be_written_is_warned_of(tmp_path, monkeypatch, function, what, fault):
    def broken(*_, **__):
        raise fault

    monkeypatch.setattr(f"selfdistill.runs.{function}", broken)
    with pytest.warns(UserWarning, match=f"training is complete, but {what} could not be written"):
        run = selfdistill.train(out=tmp_path / "run", **TINY)
    assert selfdistill.load(tmp_path / "run").exits == run.exits


def test_a_full_disk_is_no_warning_since_a_resume_writes_the_rest(tmp_path, monkeypatch):
    def full(*_, **__):
        raise ResourceError("no space left")

    with monkeypatch.context() as patch:
        patch.setattr("selfdistill.runs.finalize._write_report", full)
        with pytest.raises(ResourceError):
            selfdistill.train(out=tmp_path / "run", **TINY)
    assert not (tmp_path / "run" / "report.html").exists()
    selfdistill.train(out=tmp_path / "run", resume=True)
    assert (tmp_path / "run" / "report.html").exists()


@pytest.mark.parametrize(("began", "told"), [(None, False), (1, False), (64, True), ("x", True)])
def test_a_resume_with_other_threads_is_told(tmp_path, began, told):
    directory = RunDirectory(tmp_path)
    directory.write("environment.json", json.dumps({"format": 2, "threads": began}))
    assert ("not the same bit for bit" in machine_difference(directory)) == told
