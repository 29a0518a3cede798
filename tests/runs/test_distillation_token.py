"""A transformer with a distillation token: trained, resumed, loaded, exported with both heads."""

from importlib import import_module

import numpy as np
import pytest
import torch

import selfdistill
from selfdistill.core import ConfigError

networks = import_module("selfdistill.models.build")  # the package has a function of this name
MODEL = "own/distilled"
TINY = {"max_train_images": 64, "batch_size": 32, "quiet": True}
ABOUT_CHANCE = pytest.mark.filterwarnings("ignore:.*teacher")


def distilled(*, num_classes: int, in_channels: int) -> torch.nn.Module:
    import timm

    sizes = {"img_size": 8, "patch_size": 2, "depth": 2, "embed_dim": 16, "num_heads": 2}
    name = "deit_tiny_distilled_patch16_224"
    return timm.create_model(name, num_classes=num_classes, in_chans=in_channels, **sizes)


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    place = tmp_path_factory.mktemp("token")
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(networks._REGISTERED, MODEL, distilled)
        teacher = place / "teacher"
        selfdistill.train(method="ce", model="cifar/resnet8", out=teacher, epochs=2, **TINY)
        keys = {"method": "deit", "model": MODEL, "teacher": str(teacher), "out": place / "run"}
        selfdistill.train(**keys, epochs=1, **TINY)
        yield selfdistill.train(out=place / "run", resume=True, epochs=2, quiet=True)


@ABOUT_CHANCE
@pytest.mark.slow
def test_is_loaded_again_without_its_teacher(run):
    images = torch.randn(4, 1, 8, 8)
    again = selfdistill.load(run.path).network.eval()
    assert torch.equal(again(images), run.network.eval()(images))
    assert [score.predictor for score in run.exits] == ["student"]


@ABOUT_CHANCE
@pytest.mark.slow
@pytest.mark.parametrize("format", ["onnx", "pt2", "safetensors"])
def test_is_exported_with_both_heads(run, format, tmp_path):
    result = run.export(exit="student", format=format, out=tmp_path / "e")
    assert result.verification.holds
    network, images = run.network.eval(), torch.randn(4, 1, 8, 8)
    with torch.no_grad():
        tokens = network.forward_features(images)
        logits = [head(tokens[:, i]) for i, head in enumerate((network.head, network.head_dist))]
    np.testing.assert_allclose(network(images).detach(), sum(logits) / 2, rtol=1e-4, atol=1e-5)
    assert all(head.weight.abs().max() > 0 for head in (network.head, network.head_dist))


@ABOUT_CHANCE
@pytest.mark.slow
def test_another_network_is_refused_before_it_is_trained(run, tmp_path):
    keys = {"method": "deit", "teacher": str(run.path.parent / "teacher"), "epochs": 1}
    with pytest.raises(ConfigError, match="no distillation token"):
        selfdistill.train(model="cifar/resnet8", out=tmp_path / "no", **keys, **TINY)
