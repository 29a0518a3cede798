"""The last batch of an epoch, which in a loop of one's own may be one image, or of one class."""

import pytest
import torch

from selfdistill import wrap
from selfdistill.core import ConfigError
from selfdistill.functional.information_bounds import CHANCE
from selfdistill.models import build


def network(seed: int = 0) -> torch.nn.Module:
    torch.manual_seed(seed)
    return build("cifar/resnet8", num_classes=5, in_channels=3)


def criterion(method: str, **options):
    companions = {
        "muse-offline": {"teacher": network(1)},
        "mimkd": {"teacher": network(1)},
        "muse-online": {"peers": [network(1)]},
    }
    example = torch.zeros(2, 3, 32, 32)
    return wrap(
        network(), method, example=example, classes=5, **companions.get(method, {}), **options
    )


IMAGES = torch.randn(6, 3, 32, 32, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize(
    ("method", "options"),
    [
        ("muse", {}),
        ("muse", {"critic": "concat"}),
        ("muse", {"combine": "mul", "negatives": "roll"}),
        ("muse", {"estimator": "dv"}),
        ("muse", {"global_critic_weight": 0.5}),
        ("muse", {"positives": "class"}),
        ("muse-offline", {}),
        ("muse-online", {"critic": "concat"}),
        ("mimkd", {}),
        ("mimkd", {"critic": "concat"}),
        ("mixskd", {}),
    ],
)
def test_one_image_trains_what_needs_no_other(method, options):
    loss = criterion(method, **options)
    for size in (3, 1):
        loss.zero_grad()
        total = loss(IMAGES[:size], torch.arange(size))
        total.backward()
        assert torch.isfinite(total)
        gradients = [p.grad for p in loss.parameters() if p.grad is not None]
        assert all(torch.isfinite(g).all() for g in gradients)
        assert any(g.abs().max() > 0 for g in gradients)
    pairs = {n: v.item() for n, v in loss.last.monitors.items() if n.split("/")[0] in TERMS}
    assert all(value == pytest.approx(CHANCE) for value in pairs.values())
    critics = [p for n, p in loss.named_parameters() if ".critics." in n]
    assert all(p.grad is None or not p.grad.any() for p in critics)


TERMS = ("mutual", "self", "global", "local", "feature")


def test_a_batch_of_one_class_has_no_negatives():
    loss = criterion("muse", positives="class")
    loss(IMAGES, torch.zeros(6, dtype=torch.int64)).backward()
    for name in ("mutual/1", "self/2"):
        assert loss.last.monitors[name].item() == pytest.approx(CHANCE)
    critics = [p.grad for n, p in loss.named_parameters() if ".critics." in n]
    assert not any(grad.any() for grad in critics if grad is not None)
    assert all(torch.isfinite(p.grad).all() for p in loss.parameters() if p.grad is not None)


def test_classes_as_positives_want_classes():
    with pytest.raises(ConfigError, match="positives='class' wants one class label an image"):
        wrap(
            build("fpn/small", num_classes=5, in_channels=3), "muse", classes=5,
            example=torch.zeros(2, 3, 32, 32), task="segmentation", positives="class",
        )  # fmt: skip
    loss = criterion("muse", positives="class")
    with pytest.raises(ConfigError, match="one class an image, and these labels are mixtures"):
        loss(IMAGES, torch.full((6, 5), 0.2))
    assert criterion("muse")(IMAGES, torch.full((6, 5), 0.2)).isfinite()  # which asks for none
