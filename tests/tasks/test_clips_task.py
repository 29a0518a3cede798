import numpy as np
import pytest
import torch

from selfdistill.core import METHODS, ConfigError
from selfdistill.models import build
from selfdistill.recipe.build_method import build_method, unsupported_reason
from selfdistill.tasks import Clips, check_network, make_task, task_family

TASK = make_task("clips", "abc", (3, 4, 16, 16))


def test_the_head_is_linear_in_the_mean_over_space_and_time():
    torch.manual_seed(0)
    head, x = TASK.head(6), torch.randn(2, 6, 2, 3, 4)
    weight, bias = (p.detach().numpy() for p in head[-1].parameters())
    want = x.numpy().mean((2, 3, 4)) @ weight.T + bias
    np.testing.assert_allclose(head(x).detach().numpy(), want, rtol=1e-5, atol=1e-6)


def test_labels_are_those_of_classification():
    assert task_family("clips") == "classification"
    assert TASK.example.shape == (2, 3, 4, 16, 16)
    assert TASK.image_labels
    assert TASK.clips


def test_networks_are_checked_on_clips():
    check_network(build("clips/r3d10_w8", num_classes=3), TASK)
    with pytest.raises(ConfigError, match=r"gives \(2, 4\) for 2 images, but 3 classes"):
        check_network(build("clips/r3d10_w8", num_classes=4), TASK)


@pytest.mark.parametrize("name", ["ce", "kd", "at", "muse", "skd-srl"])
def test_methods_that_serve_clips(name):
    assert unsupported_reason(METHODS[name], Clips) == ""


def test_a_method_of_images_is_refused_in_a_sentence():
    with pytest.raises(ConfigError, match="works on images, and clips have times, too"):
        build_method("frskd", build("clips/r3d10_w8", num_classes=3), TASK)
