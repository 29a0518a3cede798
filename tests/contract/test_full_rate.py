"""Weights of terms with critics weigh what reaches the network, and no critic's rate."""

import pytest
import torch
from contract_cases import Case, moment

# the method, its options, the weight, and the parts that it is about, which the task trains
WEIGHTED = {
    "sum": ("muse", {}, "information_weight", ("student", "exits")),
    "product": ("muse", {"combine": "mul"}, "information_weight", ("student", "exits")),
    "raw": ("muse", {"feature_source": "raw"}, "information_weight", ("student", "exits")),
    "without heads": (
        "muse",
        {"supervised_weight": 0.0, "soft_weight": 0.0},
        "information_weight",
        ("student",),
    ),
    "one factor": ("muse", {"si_weight": 2.0}, "mi_weight", ("student", "exits")),
    "offline": ("muse-offline", {}, "information_weight", ("student",)),
    "offline product": ("muse-offline", {"combine": "mul"}, "information_weight", ("student",)),
    "online": ("muse-online", {}, "information_weight", ("student", "peers")),
    "global": ("mimkd", {}, "global_weight", ("student",)),
    "local": ("mimkd", {"critic": "separable"}, "local_weight", ("student",)),
    "stages": ("mimkd", {}, "feature_weight", ("student",)),
    "variational": ("vid", {}, "variational_weight", ("student",)),
    "dual distance": ("wcord", {}, "global_weight", ("student",)),
    "primal distance": ("wcord", {}, "local_weight", ("student",)),
    "vid of exits": ("exits", {"discrepancy": "vid"}, "discrepancy_weight", ("student", "exits")),
    "adversarial": (
        "exits",
        {"discrepancy": "adversarial"},
        "discrepancy_weight",
        ("student", "exits"),
    ),
}
# the terms of a weight; where it is none of these, MI and SI
TERMS = {
    "mi_weight": "mutual",
    "global_weight": "global",
    "local_weight": "local",
    "feature_weight": "feature",
    "variational_weight": "variational",
    "discrepancy_weight": "vid adversarial",
}


# one of each system, and what is special about the critics, in the fast half
FAST = ("sum", "product", "offline", "global", "variational")


@pytest.fixture(
    params=[pytest.param(n, marks=() if n in FAST else pytest.mark.slow) for n in WEIGHTED]
)
def made(request):
    name, options, weight, network = WEIGHTED[request.param]
    terms = TERMS.get(weight, "mutual self").split()

    def make(value: float):
        case = Case(name, "", {**options, weight: value}, "classification")
        method = case.method()
        parts = [(n, p) for n, p in method.named_parameters() if p.requires_grad]
        outside = [p for n, p in parts if n.split(".")[0] in network]
        return case, method, outside, terms

    return make


def trained(made, value: float, optimizer) -> list[torch.Tensor]:
    """What a critic learned of features that stand still."""
    case, method, outside, _ = made(value)
    for parameter in outside:
        parameter.requires_grad_(False)
    critics = [p for p in method.parameters() if p.requires_grad]
    steps = optimizer(critics)
    for i in range(4):
        method(case.batch(i), moment(i)).total.backward()
        steps.step()
        steps.zero_grad()
    return critics


@pytest.mark.parametrize("optimizer", ["SGD", "AdamW"])
def test_a_critic_learns_the_same_whatever_the_weight(made, optimizer):
    def make(parameters):
        return getattr(torch.optim, optimizer)(parameters, lr=0.05, weight_decay=0.01)

    light, heavy = (trained(made, value, make) for value in (0.01, 2.0))
    assert light
    assert all(torch.equal(a, b) for a, b in zip(light, heavy, strict=True))


def test_the_network_feels_the_weight(made):
    light, heavy = [], []
    for value, grads in ((0.05, light), (0.5, heavy)):
        case, method, outside, terms = made(value)
        losses = method(case.batch(), moment()).losses
        total = sum(loss for name, loss in losses.items() if {*terms} & {*name.split("/")})
        grads += torch.autograd.grad(total, outside, allow_unused=True)
    assert sum(g is not None for g in light) > 5
    for a, b in zip(light, heavy, strict=True):
        assert (a is None) == (b is None)
        if a is not None:
            torch.testing.assert_close(10 * a, b, rtol=1e-3, atol=1e-5)
