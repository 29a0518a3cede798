"""Runs on clips of videos, from training to a network that is exported and predicts."""

import io
import json
import re

import numpy as np
import pytest
import torch
from PIL import Image

import selfdistill
from selfdistill.core import ConfigError, DataError
from selfdistill.diagnosis import diagnose
from selfdistill.diagnosis.tap_candidates import tap_candidates
from selfdistill.engine.callback import Callback

SIDE, LENGTH = 12, 7
TINY = {
    "task": "clips", "model": "clips/r3d10_w8", "clip_frames": 4, "batch_size": 4, "epochs": 2,
    "val_fraction": 1 / 3, "device": "cpu", "quiet": True, "num_workers": 0,
}  # fmt: skip
ABOUT_CHANCE = pytest.mark.filterwarnings("ignore:.*teacher .* chance")


@pytest.fixture(scope="module")
def videos(tmp_path_factory):
    """A bright bar that moves to the left or to the right."""
    root = tmp_path_factory.mktemp("videos")
    draw = np.random.default_rng(0)
    for part, count in (("train", 9), ("test", 3)):
        for label, step in (("left", -1), ("right", 1)):
            for video in range(count):
                write_video(root / part / label / f"{video}", draw, step)
    return root


def write_video(folder, draw, step=1):
    folder.mkdir(parents=True)
    start = draw.integers(SIDE)
    for time in range(LENGTH):
        pixels = draw.integers(0, 60, (SIDE, SIDE, 3), dtype=np.uint8)
        pixels[:, (start + step * time) % SIDE] = 220
        Image.fromarray(pixels).save(folder / f"{time}.png")


def train(videos, out, **keys):
    return selfdistill.train(**(TINY | {"data": f"folder:{videos}", "out": out} | keys))


@pytest.fixture(scope="module")
def run(videos, tmp_path_factory):
    return train(videos, tmp_path_factory.mktemp("clips") / "run", method="skd-srl")


@pytest.fixture(scope="module")
def exits(videos, tmp_path_factory):
    return train(videos, tmp_path_factory.mktemp("exits") / "run", method="muse")


def test_what_a_run_records(run):
    record = json.loads((run.path / "data.json").read_text())
    assert (record["task"], record["shape"]) == ("clips", [3, 4, SIDE, SIDE])
    assert record["preparation"]["clip_stride"] == 1
    assert {part: facts["images"] for part, facts in record["parts"].items()} == {
        "train": 12, "val": 6, "test": 6,
    }  # fmt: skip
    names = [path.name for path in (run.path / "pictures").iterdir()]
    mistakes = (run.path / "mistakes.csv").read_text().splitlines()[1:]
    assert len(names) == len(mistakes) > 0
    with Image.open(run.path / "pictures" / names[0]) as film:  # four frames side by side
        assert film.width == 4 * film.height


class Stop(Callback):
    """Ends a run behind a step."""

    class Stopped(BaseException):
        pass

    def __init__(self, step):
        self.step = step

    def on_step(self, step, total_steps):
        if step == self.step:
            raise self.Stopped


def weights(run):
    return torch.cat([tensor.flatten().double() for tensor in run.method.state_dict().values()])


@pytest.mark.parametrize("step", [2, 4])
def test_a_run_that_was_stopped_ends_as_one_that_was_not(step, run, videos, tmp_path):
    keys = {"method": "skd-srl", "save_every_steps": 1, "callback": Stop(step)}
    with pytest.raises(Stop.Stopped):
        train(videos, tmp_path / "run", **keys)
    resumed = selfdistill.train(out=tmp_path / "run", resume=True, quiet=True)
    assert torch.equal(weights(resumed), weights(run))


def test_a_loaded_run_scores_as_it_did(run, videos):
    loaded = selfdistill.load(run.path)
    assert loaded.evaluate().exits[-1].test_score == run.exits[-1].test_score
    other = loaded.evaluate("test", data=f"folder:{videos}")
    assert other.exits[-1].test_score == run.exits[-1].test_score


def test_streamed_videos(videos, tmp_path, monkeypatch):
    monkeypatch.setattr("selfdistill.data.class_folders._IN_MEMORY", 0)
    streamed = train(videos, tmp_path / "run", method="skd-srl", image_size=8, num_workers=2)
    assert streamed.data.train.shape == (3, 4, 8, 8)
    assert streamed.exits[-1].test_score is not None


def test_channels_last(videos, tmp_path):
    keys = {"channels_last": True, "epochs": 1, "method": "skd-srl"}
    last = train(videos, tmp_path / "run", **keys)
    assert all(tensor.is_contiguous() for tensor in last.network.state_dict().values())
    assert last.exits[-1].test_score is not None


@pytest.mark.parametrize("format", ["onnx", "pt2", "safetensors"])
def test_what_is_exported_is_the_network_alone(run, tmp_path, format):
    result = run.export(format=format, out=tmp_path / "export")
    assert result.verification.images == 6
    assert result.exit_score.parameters == sum(p.numel() for p in run.network.parameters())
    card = (result.path / "README.md").read_text()
    prose = re.sub(r"```.*?```", "", card, flags=re.DOTALL)
    assert "images" not in prose  # clips are counted, learned from and verified with
    assert "pipeline_tag: video-classification" in card
    assert "(B, 3, 4, 12, 12)" in card
    assert "`skd-srl`: reconstruction from the abstract" in card


@pytest.mark.parametrize("format", ["onnx", "pt2"])
def test_an_exit_of_a_network_of_clips(exits, tmp_path, format):
    result = exits.export(exit=1, format=format, out=tmp_path / "export")
    assert result.exit_score.macs < result.student_score.macs


def test_a_file_predicts_as_its_run_and_as_its_card_says(run, videos, tmp_path, monkeypatch):
    export = run.export(format="onnx", out=tmp_path / "export")
    folders = sorted((videos / "test/left").iterdir())
    by_run, by_file = run.predict(folders), selfdistill.predict(export.file, videos / "test/left")
    assert [p.path for p in by_file] == folders
    for one, other in zip(by_run, by_file, strict=True):
        assert one.classes[0].name == other.classes[0].name
        assert one.classes[0].score == pytest.approx(other.classes[0].score, abs=1e-4)
    code = re.search(r"```python\n(.*?)```", (export.path / "README.md").read_text(), re.DOTALL)[1]
    monkeypatch.chdir(export.path)
    (export.path / "frames").symlink_to(folders[0])
    printed = io.StringIO()
    monkeypatch.setattr("builtins.print", lambda text: printed.write(str(text)))
    exec(code, {})
    assert printed.getvalue() == str([by_run[0].classes[0].name])


def test_the_data_of_a_run_need_not_be_there_to_predict(run, tmp_path):
    write_video(tmp_path / "video", np.random.default_rng(1))
    (prediction,) = selfdistill.predict(run.path, tmp_path)
    assert prediction.path == tmp_path / "video"


def test_what_cannot_be_predicted_is_named(run, videos, tmp_path):
    frame = videos / "test/left/0/0.png"
    predictions = run.predict([frame, videos / "test/left/0"])
    assert len(predictions) == 1
    assert "no folder of frames" in predictions.unreadable[frame]
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match="there is no video in"):
        run.predict(tmp_path / "empty")


@ABOUT_CHANCE
@pytest.mark.parametrize("method", ["kd", "at"])
def test_a_teacher_of_clips(exits, videos, tmp_path, method):
    taught = train(videos, tmp_path / "run", method=method, teacher=exits.path, epochs=1)
    assert taught.exits[-1].test_score is not None
    assert selfdistill.load(taught.path).evaluate().exits[-1].test_score is not None


@ABOUT_CHANCE
def test_a_teacher_of_another_normalization(exits, videos, tmp_path):
    keys = {"mean": [0.4, 0.5, 0.6], "std": [0.2, 0.3, 0.4], "epochs": 1}
    taught = train(videos, tmp_path / "run", method="kd", teacher=exits.path, **keys)
    teacher = taught.method.teacher.network
    clips = torch.rand(2, 3, 4, SIDE, SIDE)
    mean, std = (torch.tensor(keys[key]).view(3, 1, 1, 1) for key in ("mean", "std"))
    own_mean, own_std = (
        torch.tensor(x).view(3, 1, 1, 1) for x in (exits.data.mean, exits.data.std)
    )
    expected = exits.network.eval()((clips - own_mean) / own_std)
    torch.testing.assert_close(teacher((clips - mean) / std), expected)


def test_exits_are_measured_and_left_early(exits):
    assert [row.predictor for row in exits.exits] == ["exit1", "exit2", "exit3", "student"]
    assert exits.anytime()


def test_information_is_estimated(exits):
    result = exits.information(steps=4, batch_size=4)
    assert result.taps


def test_a_diagnosis(videos):
    keys = {key: value for key, value in TINY.items() if key != "quiet"}
    report = diagnose(seconds=0.01, data=f"folder:{videos}", method="skd-srl", **keys)
    assert report.data.sizes == {"train": 12, "val": 6, "test": 6}
    assert report.network.taps["layer4"] == (64, 1, 1, 1)
    assert {term.name for term in report.first_step.terms} == {"task", "soft", "similarity"}


def test_taps_of_a_network_of_clips():
    candidates = tap_candidates("clips/r3d10_w8")
    assert candidates.automatic == ["layer1", "layer2", "layer3", "layer4"]


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({"model": "cifar/resnet8"}, "is a network for images, and these are clips"),
        ({"method": "frskd"}, "works on images, and clips have times, too"),
        ({"short_videos": "refuse", "clip_frames": 8}, "give --short-videos loop"),
        ({"clip_frames": 0}, "clip_frames = 0 does not fit"),
        ({"task": "classification", "method": "ce"}, "network for clips, and these are images"),
    ],
)
def test_what_is_refused(videos, tmp_path, keys, message):
    with pytest.raises((ConfigError, DataError), match=message):
        train(videos, tmp_path / "run", **({"method": "skd-srl"} | keys))
