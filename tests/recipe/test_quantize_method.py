"""Which layers of a network compute in simulated int8."""

import torch
import torch.nn.functional as F
from torch import nn

from selfdistill.core.fake_quantization import fake_quantized
from selfdistill.recipe.build_method import build_method
from selfdistill.recipe.quantization import describe_quantization, quantize_method
from selfdistill.tasks import Classification


class Borrowed(nn.Module):
    """Reads the weight of one layer itself, as the attention of timm's BEiT does."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Conv2d(3, 4, 3, 2, 1), nn.Conv2d(4, 4, 3, 2, 1)
        self.lent, self.fc = nn.Linear(4, 4), nn.Linear(4, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.second(self.first(x).relu()).relu().mean((2, 3))
        return self.fc(F.linear(x, self.lent.weight, self.lent.bias))


def test_a_layer_that_never_runs_stays_plain_and_is_not_counted():
    example = torch.zeros(2, 3, 8, 8)
    task, network = Classification(["a", "b", "c"], example), Borrowed()
    method = build_method("exits", network, task, "first,second")
    quantize_method(method, "exits", example)
    assert list(fake_quantized(network)) == ["first", "second", "fc"]
    assert type(network.lent) is nn.Linear
    heads = fake_quantized(method.predictors()["exit1"])
    assert len(heads) > 3  # those of the exit's own head, beside the student's
    whole = sum(p.numel() for p in network.parameters() if p.dim() > 1)
    share = 1 - network.lent.weight.numel() / whole
    assert f"3 layers in simulated int8, {share:.0%} of the weights" in describe_quantization(
        network
    )
