"""What is known of published networks before their weights are fetched."""

import pytest
from torch import nn

from selfdistill.core import ConfigError, ResourceError
from selfdistill.models import find_pretrained

IMAGENET = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))


@pytest.mark.parametrize("model", ["timm/resnet18", "torchvision/resnet18"])
def test_classes_and_normalization(model):
    result = find_pretrained(model)
    assert (result.classes, (result.input.mean, result.input.std)) == (1000, IMAGENET)
    assert result.input.size == (224, 224)


def test_one_of_timms_sets_of_weights():
    result = find_pretrained("timm/vit_base_patch16_224.augreg_in21k")
    assert result.classes == 21843
    assert result.input.mean == (0.5, 0.5, 0.5)


def test_the_whole_network_is_asked_for(monkeypatch):
    import timm

    requests = {}
    monkeypatch.setattr(timm, "create_model", lambda *a, **k: requests.update(k) or nn.Identity())
    find_pretrained("timm/resnet18").load()
    assert requests == {"pretrained": True}  # its own head, not one for other classes


def test_a_failing_download_is_told(monkeypatch):
    import timm

    def fail(*args, **keys):
        raise OSError("no route")

    monkeypatch.setattr(timm, "create_model", fail)
    with pytest.raises(ResourceError, match="could not be fetched"):
        find_pretrained("timm/resnet18").load()


@pytest.mark.parametrize(
    ("model", "message"),
    [
        ("timm/resnt18", "did you mean 'timm/resnet18'"),
        ("torchvision/resnt18", "did you mean 'torchvision/resnet18'"),
        ("cifar/resnet18", "no published weights"),
    ],
)
def test_wrong_names(model, message):
    with pytest.raises(ConfigError, match=message):
        find_pretrained(model)
