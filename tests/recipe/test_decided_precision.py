"""A run computes in the precision that its recipe ends with, though processes start before."""

from itertools import pairwise

import pytest
import torch
from torch import nn

import selfdistill
from selfdistill.diagnosis import diagnose
from selfdistill.recipe import machine_choices

TINY = {"method": "ce", "epochs": 1, "max_train_images": 64, "batch_size": 32}
AUTO = {"device": "cpu", "quiet": True}


class Deep(nn.Module):
    """As many halvings of 8×8 pixels as asked for; after four a 3×3 kernel meets one cell."""

    def __init__(self, halvings: int) -> None:
        super().__init__()
        widths = [1, *(8,) * halvings]
        layers = [nn.Conv2d(inner, outer, 3, 2, 1) for inner, outer in pairwise(widths)]
        self.stages = nn.Sequential(*layers)
        self.classify = nn.Linear(8, 10)
        self.types: set[torch.dtype] = set()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.stages(x)
        self.types.add(x.dtype)
        return self.classify(x.mean((2, 3)))


@pytest.fixture(autouse=True)
def _bf16_in_hardware(monkeypatch):
    monkeypatch.setattr(machine_choices, "has_fast_bfloat16", lambda kind: True)


@pytest.mark.parametrize(
    ("halvings", "keys", "expected"),
    [(2, {}, "bf16"), (4, {}, "fp32"), (2, {"precision": "fp32"}, "fp32")],
)
def test_training_computes_in_the_precision_of_its_recipe(tmp_path, halvings, keys, expected):
    network = Deep(halvings)
    run = selfdistill.train(model=network, out=tmp_path / "run", **TINY, **AUTO, **keys)
    assert run.recipe.precision == expected
    assert (torch.bfloat16 in network.types) is (expected == "bf16")
    network.types.clear()
    run.evaluate("val")
    assert (torch.bfloat16 in network.types) is (expected == "bf16")


@pytest.mark.parametrize("method", ["ce", "exits"])
def test_small_maps_give_the_same_weights_twice(tmp_path, method):
    ends = []
    for name in ("first", "second"):
        torch.manual_seed(0)
        keys = {**TINY, "method": method}
        run = selfdistill.train(model=Deep(4), out=tmp_path / name, **keys, **AUTO)
        ends.append(run.network.state_dict())
    first, second = ends
    for key, value in first.items():
        torch.testing.assert_close(value, second[key], rtol=0, atol=0)


def test_the_diagnosis_measures_in_the_precision_of_the_run(tmp_path, monkeypatch):
    seen = set()

    class Seen(Deep):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            output = super().forward(x)
            seen.update(self.types)
            return output

    keys = {key: value for key, value in AUTO.items() if key != "quiet"}
    diagnose(model=Seen(4), out=tmp_path / "run", seconds=0.1, **TINY, **keys)
    assert seen == {torch.float32}
