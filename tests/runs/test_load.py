"""A run from its directory: what must be given again of the objects that it was made with."""

import json
import re

import pytest
import torch
from torch import nn

import selfdistill
from selfdistill.core import METHODS, ArtifactError, ConfigError, DataError
from selfdistill.data import ImageData, InMemoryImages
from selfdistill.models import build
from selfdistill.recipe.build_method import unsupported_reason
from selfdistill.tasks import Classification

TINY = {
    "epochs": 1,
    "max_train_images": 16,
    "batch_size": 16,
    "val_fraction": 0.02,
    "model": "cifar/resnet8",
}
QUICK = ("fitnets", "kd")
OFFLINE = [
    name if name in QUICK else pytest.param(name, marks=pytest.mark.slow)
    for name in METHODS
    if METHODS[name].kind == "offline"
    and not METHODS[name].needs.distillation_token  # test_distillation_token.py
    and not METHODS[name].needs.unlabeled  # test_unlabeled_runs.py
    and not unsupported_reason(METHODS[name], Classification)
]
ABOUT_CHANCE = pytest.mark.filterwarnings("ignore:teacher .* guesses")


def module(seed: int = 0) -> nn.Module:
    torch.manual_seed(seed)
    return build("cifar/resnet10_w16", num_classes=10, in_channels=1)


def teacher_of(name: str) -> nn.Module:
    """A network, or the method that its students want it to be trained by."""
    if not (trained_by := METHODS[name].teacher_method):
        return module()
    return selfdistill.wrap(
        module(), trained_by, example=torch.zeros(2, 1, 8, 8), classes=10
    ).method


@ABOUT_CHANCE
@pytest.mark.parametrize("name", OFFLINE)
def test_a_teacher_that_was_a_module_is_not_asked_for(name, tmp_path):
    keys = TINY | {"model": "cifar/resnet10_w16"}  # as many stages as the teacher
    run = selfdistill.train(method=name, teacher=teacher_of(name), out=tmp_path / "run", **keys)
    again = selfdistill.load(tmp_path / "run")
    images = torch.randn(2, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    for mine, theirs in zip(
        again.method.predict(images).values(), run.method.predict(images).values(), strict=True
    ):
        assert torch.equal(mine, theirs)


class Versioned(nn.Conv2d):
    """Like layers of torchvision's MNASNet, it takes no tensors whose layout is unknown."""

    _version = 2

    def _load_from_state_dict(self, state, prefix, metadata, *rest):
        assert metadata.get("version") == 2
        super()._load_from_state_dict(state, prefix, metadata, *rest)


def test_layers_hear_the_version_of_their_layout(tmp_path):
    def network():
        layers = [Versioned(1, 4, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten()]
        return nn.Sequential(*layers, nn.Linear(4, 10))

    keys = {**TINY, "epochs": 2, "ema_decay": 0.9}
    del keys["model"]
    run = selfdistill.train(method="ce", model=network(), out=tmp_path / "run", **keys)
    again = selfdistill.load(tmp_path / "run", model=network())
    images = torch.ones(1, 1, 8, 8)
    assert torch.equal(again.network(images), run.network(images))


@pytest.mark.slow
@ABOUT_CHANCE
def test_tokens_keep_their_shape_when_the_teacher_is_gone(tmp_path):
    import timm

    torch.manual_seed(0)
    small = {"img_size": 8, "patch_size": 2, "embed_dim": 16, "depth": 4, "num_heads": 2}
    teacher = timm.create_model("vit_tiny_patch16_224", num_classes=10, in_chans=1, **small)
    selfdistill.train(method="muse-offline", teacher=teacher, out=tmp_path / "run", **TINY)
    shapes = json.loads((tmp_path / "run" / "teacher.json").read_text())["taps"]["auto"]
    method = selfdistill.load(tmp_path / "run").method
    assert list(map(list, method.teacher.shapes.values())) == list(shapes.values())
    assert list(shapes.values())[-1] == [16, 4, 4]


@ABOUT_CHANCE
def test_a_teacher_that_is_given_is_taken(tmp_path):
    teacher = module()
    selfdistill.train(method="kd", teacher=teacher, out=tmp_path / "run", **TINY)
    loaded = selfdistill.load(tmp_path / "run", teacher=teacher)
    assert teacher in loaded.method.modules()
    (tmp_path / "run" / "teacher.json").write_text("{}")
    with pytest.raises(ArtifactError, match=r"does not tell the shapes.*teacher="):
        selfdistill.load(tmp_path / "run")


@ABOUT_CHANCE
def test_to_go_on_it_is_needed(tmp_path):
    out = tmp_path / "run"
    selfdistill.train(method="kd", teacher=module(), out=out, **TINY)
    with pytest.raises(ConfigError, match=r"no teacher 'ResNet'.*or, in Python, a module"):
        selfdistill.train(out=out, resume=True)
    assert selfdistill.train(out=out, resume=True, teacher=module()).path == out


class Own(nn.Module):
    """A network that no name stands for."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Sequential(nn.Conv2d(1, 8, 3, 2, 1), nn.ReLU())
        self.classify = nn.Linear(8, 10)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.classify(self.first(x).mean((2, 3)))


@pytest.mark.parametrize(
    ("method", "objects"),
    [("ce", {"model": Own}), ("dml", {"peers": lambda: [Own()]})],
)
def test_a_network_that_was_a_module_is_asked_for(method, objects, tmp_path):
    made = {what: make() for what, make in objects.items()}
    (what,) = made
    run = selfdistill.train(**{**TINY, "method": method, "out": tmp_path / "run", **made})
    sentence = re.escape(f"given as a module, Own; give one like it again, in Python: {what}=")
    with pytest.raises(ConfigError, match=sentence):
        selfdistill.load(tmp_path / "run")
    with pytest.raises(ConfigError, match=sentence):
        selfdistill.train(out=tmp_path / "run", resume=True)
    again = selfdistill.load(tmp_path / "run", **{what: make() for what, make in objects.items()})
    assert again.exits == run.exits
    for key, value in run.network.state_dict().items():
        assert torch.equal(again.network.state_dict()[key], value)


def test_data_that_were_an_object_are_asked_for(tmp_path):
    pixels, labels = torch.randint(0, 256, (40, 1, 8, 8), dtype=torch.uint8), torch.arange(40) % 4
    images = InMemoryImages(pixels, labels)
    parts = images, InMemoryImages(pixels[:8], labels[:8]), None
    augmentation = {"crop_padding": 0, "flip": False, "resized_crop": False}
    own = ImageData("mine", *parts, [*"abcd"], *images.mean_and_std(), **augmentation)
    keys = {key: value for key, value in TINY.items() if key != "val_fraction"}
    selfdistill.train(method="ce", data=own, out=tmp_path / "run", quiet=True, **keys)
    asked = pytest.raises(DataError, match=r"run of an ImageData of that name .* data= gives it")
    with asked:
        selfdistill.load(tmp_path / "run")
    with asked:
        selfdistill.train(resume=tmp_path / "run", epochs=2, quiet=True)
    assert selfdistill.load(tmp_path / "run", data=own).data.classes == [*"abcd"]


def test_a_run_that_a_gpu_trained_in_bf16_is_loaded_on_a_cpu(tmp_path, monkeypatch):
    """Where a CPU would refuse to train it: its maps are smaller than some kernels reach."""
    with monkeypatch.context() as gpu:
        gpu.setattr("selfdistill.recipe.machine_choices.wrong_gradients", lambda *_: "")
        keys = TINY | {"model": "cifar/resnet10_w16", "precision": "bf16"}
        selfdistill.train(method="ce", out=tmp_path / "run", **keys, quiet=True)
    run = selfdistill.load(tmp_path / "run")
    assert run.recipe.precision == "bf16"
    assert run.export(format="safetensors").file.exists()
    with pytest.raises(ConfigError, match="which a run that has begun in bf16 cannot change to"):
        selfdistill.train(out=tmp_path / "run", resume=True, epochs=2, quiet=True)
