"""Runs on tar shards and Arrow, streamed: those on the same pictures in folders, and resumed."""

import sys
from pathlib import Path

import pytest
import torch

import selfdistill
from selfdistill.core import DataError
from selfdistill.diagnosis import diagnose
from selfdistill.engine.callback import Callback

sys.path.insert(0, str(Path(__file__).parents[1] / "data"))
from shard_files import CLASSES, encoded, samples, write_folder, write_shards

pytestmark = pytest.mark.filterwarnings("ignore:.*chance")
TINY = {"method": "ce", "model": "cifar/resnet8", "image_size": 8, "batch_size": 8, "epochs": 2}
TINY |= {"save_every_steps": 1, "num_workers": 0, "quiet": True, "val_fraction": 0.2}


class Stop(Callback):
    """Ends a run in the middle of a step."""

    class Stopped(BaseException):
        pass

    def on_step(self, step, total_steps):
        if step == 4:
            raise self.Stopped


@pytest.fixture(autouse=True)
def streamed(monkeypatch):
    monkeypatch.setattr("selfdistill.data.class_folders._IN_MEMORY", 0)


@pytest.fixture(scope="module")
def places(tmp_path_factory):
    place = tmp_path_factory.mktemp("places")
    train, test = samples(40), samples(9, seed=90)
    for part, rows in (("train", train), ("test", test)):
        write_folder(place / "folder" / part, rows)
        write_shards(place / "shards", rows, stem=part)
    (place / "shards" / "classes.txt").write_text("\n".join(CLASSES))
    return place


def write_arrow(path, **parts):
    """The same pictures as `datasets` saves them, rows as of `samples` by part."""
    datasets = pytest.importorskip("datasets")
    kinds = {"image": datasets.Image(), "label": datasets.ClassLabel(names=list(CLASSES))}
    columns = {
        part: {
            "image": [{"bytes": content, "path": f"{name}.png"} for name, content, _ in rows],
            "label": [label for *_, label in rows],
        }
        for part, rows in parts.items()
    }
    features = datasets.Features(kinds)
    datasets.DatasetDict(
        {part: datasets.Dataset.from_dict(rows, features) for part, rows in columns.items()}
    ).save_to_disk(path)


def weights(run):
    return torch.cat([tensor.flatten().double() for tensor in run.method.state_dict().values()])


def test_a_run_is_that_on_folders_and_resumes_bit_for_bit(places, tmp_path):
    folder = selfdistill.train(data=f"folder:{places}/folder", out=tmp_path / "folder", **TINY)
    keys = TINY | {"data": f"wds:{places}/shards"}
    run = selfdistill.train(out=tmp_path / "shards", **keys)
    assert torch.equal(weights(run), weights(folder))
    assert run.exits == folder.exits
    with pytest.raises(Stop.Stopped):
        selfdistill.train(out=tmp_path / "part", callback=Stop(), **keys | {"num_workers": 2})
    resumed = selfdistill.train(out=tmp_path / "part", resume=True, quiet=True)
    assert torch.equal(weights(resumed), weights(run))
    loaded = selfdistill.load(run.path)
    assert loaded.evaluate().exits[-1].test_score == run.exits[-1].test_score
    (tmp_path / "x.png").write_bytes(encoded(1))
    assert loaded.predict(tmp_path / "x.png")
    report = diagnose(seconds=0.01, data=keys["data"], method="ce", image_size=8, batch_size=8)
    assert report.data.sizes == {"train": 36, "val": 4, "test": 9}
    assert report.data.duplicates == {"val": (0, 4), "test": (0, 9)}
    write_shards(places / "shards", samples(39))
    with pytest.raises(DataError, match="it has 31 train images and was 32 then"):
        selfdistill.train(out=run.path, resume=True, epochs=3, quiet=True)


def test_a_run_on_arrow_is_that_on_folders_and_resumes_bit_for_bit(tmp_path):
    train, test = samples(40), samples(9, seed=90)
    write_folder(tmp_path / "pictures" / "train", train)
    write_folder(tmp_path / "pictures" / "test", test)
    write_arrow(tmp_path / "set", train=train, test=test)
    folder = selfdistill.train(data=f"folder:{tmp_path}/pictures", out=tmp_path / "folder", **TINY)
    keys = TINY | {"data": f"hf:{tmp_path}/set"}
    with pytest.raises(Stop.Stopped):
        selfdistill.train(out=tmp_path / "part", callback=Stop(), **keys | {"num_workers": 2})
    resumed = selfdistill.train(out=tmp_path / "part", resume=True, quiet=True)
    assert torch.equal(weights(resumed), weights(folder))
    assert resumed.exits == folder.exits
