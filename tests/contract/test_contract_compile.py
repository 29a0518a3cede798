"""torch.compile of every method: the same numbers, and one compilation for all steps."""

import copy

import pytest
import torch
import torch._dynamo
from contract_cases import moment, one_of_a_kind, usual_cases, variants_on_one_task

# What comes out of uncompiled code with a gradient is looked at by torch's compiler, which hides
# its own warning of that, but not from the suite.
pytestmark = pytest.mark.filterwarnings(
    "ignore:The .grad attribute of a Tensor that is not a leaf:UserWarning"
)


def check(case, backend: str) -> None:
    torch._dynamo.reset()
    method = case.method()
    plain = copy.deepcopy(method)
    method.compile(backend=backend)
    with torch._dynamo.config.patch(error_on_recompile=True):
        for i in (0, 1, 2, 900):
            batch, progress = case.batch(i), moment(i, seed=i)
            got, want = method(batch, progress), plain(batch, progress)
            assert got.losses.keys() == want.losses.keys()
            # two orders of the same fp32 sums, of which aicsd weighs one by 100
            torch.testing.assert_close(got.losses, want.losses, rtol=1e-4, atol=1e-5)
            got.total.backward()
            for each in (method, plain):
                each.after_step(progress)


@one_of_a_kind
def test_compiles_once(case):
    check(case, "eager")


@pytest.mark.slow
@variants_on_one_task
def test_every_variant_compiles_once(case):
    check(case, "eager")


@pytest.mark.slow
@usual_cases
def test_ahead_of_time_autograd_compiles_once(case):
    check(case, "aot_eager")
