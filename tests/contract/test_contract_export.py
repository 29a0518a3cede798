"""The student of any method exports bare, peers and exits too, and what only helped is refused."""

import copy

import pytest
import torch
from contract_cases import DEFAULTS, every_default, moment, over, same
from safetensors.torch import load_file

from selfdistill.core import ConfigError
from selfdistill.export.extract_predictor import extract_predictor
from selfdistill.export.fuse_batchnorm import fuse_batchnorm
from selfdistill.export.normalized_input import NormalizedInput
from selfdistill.export.onnx_export import onnx_runner, write_onnx
from selfdistill.export.safetensors_export import write_weights

HELPERS = ("teacher", "ensemble")


def trained(case):
    """A method after a step, so that no statistic is what it was made with."""
    method = case.method()
    step = method(case.batch(), moment())
    step.total.backward()
    torch.optim.SGD(method.param_groups(), lr=0.01).step()
    return method.eval()


@every_default
def test_predictors_are_bare_and_the_student_fits_its_architecture(case, tmp_path):
    method, x = trained(case), case.batch(seed=1).inputs
    said = copy.deepcopy(method).predict(x)  # an export works on a copy
    for name, want in said.items():
        if name in HELPERS:
            with pytest.raises(ConfigError, match=f"'{name}' helps to train"):
                extract_predictor(method, name)
            continue
        taken = extract_predictor(method, name)
        assert not [m for m in taken.modules() if m._forward_hooks or m._forward_pre_hooks]
        assert not {id(p) for p in taken.parameters()} & {id(p) for p in method.parameters()}
        assert same(taken(x), want)
    write_weights(
        taken, tmp_path / "model.safetensors", metadata={}
    )  # of the student, the last one
    if case.composite:
        return
    other = case.network(seed=9).eval()
    other.load_state_dict(load_file(tmp_path / "model.safetensors"))  # the very keys, no more
    assert same(other(x), said["student"])


# What a detector is exported as, boxes, is another network than its predictions.
@pytest.mark.slow
@over([case for case in DEFAULTS if case.task != "detection"])
def test_every_predictor_runs_as_onnx(case, tmp_path):
    method, x = trained(case), torch.rand(5, *case.shape)
    for name, want in method.predict((x - 0.5) / 0.25).items():
        if name not in HELPERS:
            fused, sides = fuse_batchnorm(extract_predictor(method, name)), len(case.shape) - 1
            network = NormalizedInput(fused.network, [0.5] * 3, [0.25] * 3, sides).eval()
            write_onnx(network, x[:2], tmp_path / f"{name}.onnx")
            got = onnx_runner(tmp_path / f"{name}.onnx")(x)
            torch.testing.assert_close(got, want.detach(), rtol=1e-4, atol=1e-4)
