"""Runs with frozen parts, rates by depth and presets: what they leave, and how they go on."""

import pytest
import torch
from safetensors.torch import load_file, save_file
from saved_tensors import saved_tensors

import selfdistill
from selfdistill.core import ConfigError
from selfdistill.engine.callback import Callback
from selfdistill.engine.run_directory import RunDirectory
from selfdistill.models import build

MODEL = "cifar/resnet10_w16"
USUAL = {
    "data": "digits", "model": MODEL, "method": "ce", "epochs": 2, "max_train_images": 96,
    "batch_size": 32, "num_workers": 0, "device": "cpu",
}  # fmt: skip


class Stopped(Exception):
    pass


class Stop(Callback):
    """Stops a run after some steps, and keeps what it is told."""

    def __init__(self, after=10**9):
        self.after, self.messages, self.summary = after, [], {}

    def on_start(self, summary):
        self.summary = summary

    def on_step(self, step, total):
        if step > self.after:
            raise Stopped

    def on_message(self, text):
        self.messages.append(text)


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    torch.manual_seed(3)
    path = tmp_path_factory.mktemp("weights") / "w.safetensors"
    network = build(MODEL, num_classes=10, in_channels=1)
    for name, tensor in network.state_dict().items():
        if "running" in name:
            tensor.uniform_(0.5, 1.5)
    save_file(network.state_dict(), path)
    return path


OPTIONS = {
    "frozen": {"freeze_until": "layer1"},
    "depth": {"layer_decay": 0.5, "head_lr_factor": 3.0, "norm_decay": False},
    "timm": {"optimizer": "lamb", "batchnorm": "frozen"},
    "all": {
        "freeze_until": "layer1", "layer_decay": 0.5, "optimizer": "nadamw", "ema_decay": 0.5,
        "batchnorm": "reestimate", "method": "exits",
    },
}  # fmt: skip


@pytest.mark.parametrize("name", OPTIONS)
def test_a_resume_is_exact(tmp_path, weights, name):
    keys = {**USUAL, "weights": str(weights), "save_every_steps": 1, **OPTIONS[name]}
    run = selfdistill.train(**keys, out=tmp_path / "straight", quiet=True)
    with pytest.raises(Stopped):
        selfdistill.train(**keys, out=tmp_path / "stopped", callback=Stop(2))
    selfdistill.train(out=tmp_path / "stopped", resume=True, quiet=True)
    straight, resumed = saved_tensors(run.path), saved_tensors(tmp_path / "stopped")
    assert straight.keys() == resumed.keys()
    for key, tensor in straight.items():
        assert torch.equal(tensor, resumed[key]), key
    if "freeze_until" in OPTIONS[name]:
        before, after = load_file(weights), run.network.state_dict()
        frozen = [n for n in before if n.startswith(("stem", "conv1", "bn1", "layer1"))]
        assert frozen
        assert all(torch.equal(before[n], after[n].cpu()) for n in frozen)
        assert not torch.equal(before["fc.weight"], after["fc.weight"])
        assert not any(key.startswith("optimizer/student.layer1") for key in straight)


def test_what_is_deployed_is_told_with_both_scores(tmp_path, weights):
    watcher = Stop()
    keys = {**USUAL, "epochs": 1, "weights": str(weights), "ema_decay": 0.9}
    run = selfdistill.train(**keys, out=tmp_path / "run", callback=watcher)
    (text,) = [m for m in watcher.messages if "moving average" in m]
    entry = [e for e in RunDirectory(run.path).metrics() if e["kind"] == "epoch"][-1]
    assert f"accuracy {entry['val']['student']['accuracy']:.4f} on validation" in text
    assert f"themselves {entry['val_without_ema']['student']['accuracy']:.4f}" in text
    assert run.exits[-1].val_score == pytest.approx(entry["val"]["student"]["accuracy"])


def test_the_first_lines_name_the_preset(tmp_path, weights):
    watcher = Stop(1)
    with pytest.raises(Stopped):
        selfdistill.train(
            **USUAL, weights=str(weights), lr=0.5, out=tmp_path / "run", callback=watcher
        )
    assert watcher.summary["preset"] == (
        "finetune (classification, convolutional network, initial weights): weight_decay 0.0001, "
        "warmup_epochs 0.2; given otherwise: lr"
    )
    kept = (tmp_path / "run" / "recipe.toml").read_text()
    assert 'preset = "finetune"' in kept
    assert "lr = 0.5" in kept
    assert "weight_decay = 0.0001" in kept


@pytest.mark.parametrize(
    ("keys", "match"),
    [
        ({"freeze_until": "layer1"}, "--freeze-until would keep random weights"),
        ({"freeze_until": "fc", "weights": True}, "nothing is left to train"),
        ({"freeze_until": "layre1", "weights": True}, "did you mean 'layer1'"),
        ({"optimizer": "ranger"}, "no optimizer 'ranger'"),
        ({"optimizer": "fusedadam"}, "cannot be used here"),
    ],
)
def test_what_makes_no_sense_is_refused_in_a_sentence(tmp_path, weights, keys, match):
    keys = {**keys, **({"weights": str(weights)} if keys.get("weights") else {})}
    with pytest.raises(ConfigError, match=match):
        selfdistill.train(**{**USUAL, **keys}, out=tmp_path / "run", quiet=True)
    assert not (tmp_path / "run").exists()


@pytest.mark.filterwarnings("ignore:.*left out:UserWarning")
@pytest.mark.parametrize("method", ["exits", "ce"])
def test_a_head_that_starts_anew_is_not_frozen(tmp_path, method):
    path = tmp_path / "twenty.safetensors"
    save_file(build(MODEL, num_classes=20, in_channels=1).state_dict(), path)
    keys = {**USUAL, "weights": str(path), "method": method}
    with pytest.raises(ConfigError, match=r"would keep fc\.bias, .* at random"):
        selfdistill.train(**keys, freeze_until="fc", out=tmp_path / "run", quiet=True)
    selfdistill.train(**keys, freeze_until="layer3", out=tmp_path / "run", quiet=True)


STRONG = {
    "auto_augment": "randaugment", "erase_probability": 0.5, "mixup": 0.4, "cutmix": 1.0,
    "color_jitter": 0.2, "label_smoothing": 0.1,
}  # fmt: skip


@pytest.mark.parametrize("method", ["ce", "exits"])
def test_strong_augmentation_goes_on_exactly(tmp_path, method):
    keys = {**USUAL, **STRONG, "method": method, "save_every_steps": 1}
    run = selfdistill.train(**keys, out=tmp_path / "straight", quiet=True)
    with pytest.raises(Stopped):
        selfdistill.train(**keys, out=tmp_path / "stopped", callback=Stop(2))
    selfdistill.train(out=tmp_path / "stopped", resume=True, quiet=True)
    straight, resumed = saved_tensors(run.path), saved_tensors(tmp_path / "stopped")
    assert all(torch.equal(tensor, resumed[key]) for key, tensor in straight.items())
    steps = [e for e in RunDirectory(run.path).metrics() if e["kind"] == "step"]
    assert all(0 <= entry["train"]["accuracy"] <= 1 for entry in steps)


@pytest.mark.parametrize(
    ("keys", "match"),
    [
        ({"method": "uskd", "mixup": 0.2}, "'uskd' takes each image for one .* --mixup 0"),
        ({"method": "cskd", "cutmix": 1.0}, "'cskd' takes each image for one .* --cutmix 0"),
        ({"mixup": -1.0}, "mixup"),
        ({"erase_probability": 1.5}, "erase_probability"),
        ({"auto_augment": "autoaugment"}, "auto_augment"),
        ({"randaugment_strength": 31}, "randaugment_strength"),
    ],
)
def test_augmentation_that_cannot_be_is_refused(tmp_path, keys, match):
    with pytest.raises(ConfigError, match=match):
        selfdistill.train(**{**USUAL, **keys}, out=tmp_path / "run", quiet=True)
    assert not (tmp_path / "run").exists()
