"""NASNet's cells against those that timm has for large images."""

import pytest
import torch
from timm.models import nasnet as reference
from torch import nn

from selfdistill.models.cifar import NETWORKS
from selfdistill.models.cifar.nasnet import Halve, NormalCell, ReductionCell

NORMAL = {
    "last5": "comb_iter_0_left",
    "previous3": "comb_iter_0_right",
    "pair5": "comb_iter_1_left",
    "pair3": "comb_iter_1_right",
    "last3": "comb_iter_4_left",
    "fit_last": "conv_1x1",
    "fit_previous": "conv_prev_1x1",
}
REDUCTION = {
    "last5": "comb_iter_0_left",
    "previous7a": "comb_iter_0_right",
    "previous7b": "comb_iter_1_right",
    "previous5": "comb_iter_2_right",
    "inner3": "comb_iter_4_left",
    "fit_last": "conv_1x1",
    "fit_previous": "conv_prev_1x1",
}


def share(ours, reference_network, pairs):
    """Give ours the weights of theirs, and the small number in its batch norms."""
    assert {n for n, _ in ours.named_children()} == set(pairs)
    for own_network, other in pairs.items():
        target, source = ours.get_submodule(own_network), reference_network.get_submodule(other)
        values = source.state_dict().values()
        target.load_state_dict(dict(zip(target.state_dict(), values, strict=True)))
    for module in ours.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.eps = 1e-3


@pytest.mark.parametrize("size", [8, 9])
@pytest.mark.parametrize(
    ("kind", "other", "pairs"),
    [
        (NormalCell, reference.NormalCell, NORMAL),
        (ReductionCell, reference.ReductionCell0, REDUCTION),
    ],
)
def test_cell_equals_timm(kind, other, pairs, size):
    torch.manual_seed(0)
    ours, reference_network = kind(12, 10, 4, halve=False), other(10, 4, 12, 4)
    share(ours, reference_network, pairs)
    last, previous = torch.randn(2, 12, size, size), torch.randn(2, 10, size, size)
    torch.testing.assert_close(ours(last, previous), reference_network(last, previous))


@pytest.mark.parametrize("size", [8, 9])
def test_halving_equals_timm(size):
    torch.manual_seed(0)
    ours, reference_network = Halve(10, 4), reference.FirstCell(10, 2, 12, 4)
    ours.even, ours.odd = reference_network.path_1.conv, reference_network.path_2.conv
    ours.bn = reference_network.final_path_bn
    previous, last = torch.randn(2, 10, size, size), torch.randn(2, 12, *[(size + 1) // 2] * 2)
    handed_on = reference_network(last, previous)[:, :4]
    torch.testing.assert_close(ours(previous), handed_on)


def test_with_the_idle_convolutions_of_the_zoo_it_has_the_papers_size():
    """The zoo gives each cell both ways to fit its earlier input and uses one or none of them."""
    with torch.device("meta"):
        network = NETWORKS["nasnet"](num_classes=100)
    used = sum(m.weight.numel() for m in network.modules() if isinstance(m, nn.Conv2d))
    channels = [44, 44, *[264] * 4, 352, *[528] * 4, 704, *[1056] * 4]  # prev of cell i, out of i-2
    widths = [44] * 4 + [88] * 5 + [176] * 5
    idle = sum(2 * c * w for c, w in zip(channels, widths, strict=False))
    for cell in network.cells:
        idle -= sum(
            m.weight.numel() for m in cell.fit_previous.modules() if hasattr(m, "kernel_size")
        )
    assert idle == 882_816
    assert (used + idle) / 1e6 == pytest.approx(5.05, rel=0.005)
