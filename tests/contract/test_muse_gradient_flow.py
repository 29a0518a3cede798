"""Which term of MUSE trains which part of the network, term by term."""

import copy

import pytest
import torch
from contract_cases import Case, moment

TRUNK = {f"stage{i}" for i in range(1, 5)}


def group(name: str) -> str:
    """The part that a parameter belongs to: "stage2", "fc", "bottleneck 1", "critic self 3", …"""
    parts = name.split(".")
    if parts[0] == "student":
        return parts[2]
    if parts[0] == "critics":
        return f"critic {parts[1]} {int(parts[2]) + 1}"
    return f"{parts[1].removesuffix('s')} {int(parts[2]) + 1}"


def reached(options, case_task: str = "classification") -> dict[str, set[str]]:
    """{term: the parts that its gradient reaches, by values that are not all zero}."""
    method = Case("muse", "", options, case_task).method()
    step = method(Case("muse", "", options, case_task).batch(), moment())
    names, parameters = zip(*method.named_parameters(), strict=True)
    found = {}
    for term, loss in step.losses.items():
        grads = torch.autograd.grad(loss, parameters, retain_graph=True, allow_unused=True)
        hit = (n for n, g in zip(names, grads, strict=True) if g is not None and g.abs().max() > 0)
        found[term] = {group(name) for name in hit}
    return found


def until(i: int) -> set[str]:
    return {f"stage{j}" for j in range(1, i + 1)}


def test_every_term_reaches_its_parts_and_no_other():
    found = reached({})
    assert found.pop("task") == TRUNK | {"fc"}
    for i in (1, 2, 3):
        exit_ = until(i) | {f"bottleneck {i}"}
        assert found.pop(f"task/{i}") == exit_ | {f"head {i}"}
        assert found.pop(f"soft/{i}") == exit_ | {f"head {i}"}
        assert found.pop(f"mutual/{i}") == TRUNK | {f"bottleneck {i}", f"critic mutual {i}"}
        assert found.pop(f"self/{i}") == exit_ | {f"critic self {i}"}
    assert not found


def test_product_reaches_what_its_factors_reach():
    found = reached({"combine": "mul"})
    for i in (1, 2, 3):
        critics = {f"critic mutual {i}", f"critic self {i}"}
        assert found[f"product/{i}"] == TRUNK | {f"bottleneck {i}"} | critics
    assert {term.split("/")[0] for term in found} == {"task", "soft", "product"}


def test_raw_features_go_around_the_exits():
    found = reached({"site": "raw"})
    for i in (1, 2, 3):
        assert found[f"mutual/{i}"] == TRUNK | {f"critic mutual {i}"}
        assert found[f"self/{i}"] == until(i) | {f"critic self {i}"}


def test_encoded_view_goes_through_the_bottleneck():
    found = reached({"site": "raw", "self_view": "encoded"})
    for i in (1, 2, 3):
        assert found[f"self/{i}"] == until(i) | {f"bottleneck {i}", f"critic self {i}"}


def test_detached_last_feature_learns_nothing_from_the_exits():
    found = reached({"detach_last": True})
    for i in (1, 2, 3):
        assert found[f"mutual/{i}"] == until(i) | {f"bottleneck {i}", f"critic mutual {i}"}


@pytest.mark.parametrize("negatives", ["all", "roll"])
def test_gradient_of_a_product_is_the_product_rule(negatives):
    case = Case("muse", "", {"combine": "mul", "negatives": negatives}, "classification")
    method = case.method()
    adds = copy.deepcopy(method)
    adds.combine = "add"
    step, terms = method(case.batch(), moment()), adds(case.batch(), moment()).losses
    weight = method.information
    for i in (1, 2, 3):
        mutual, own = terms[f"mutual/{i}"] / weight, terms[f"self/{i}"] / weight
        torch.testing.assert_close(step.losses[f"product/{i}"], weight * mutual * own)
        got, by_mutual, by_own = (
            torch.autograd.grad(
                loss, list(m.parameters()), retain_graph=True, materialize_grads=True,
                allow_unused=True,
            )
            for loss, m in ((step.losses[f"product/{i}"], method), (mutual, adds), (own, adds))
        )  # fmt: skip
        for g, m, s in zip(got, by_mutual, by_own, strict=True):
            torch.testing.assert_close(g, weight * (own * m + mutual * s), rtol=1e-4, atol=1e-6)


def test_all_weights_zero_trains_the_student_as_plain_cross_entropy():
    off = {"information": 0.0, "supervised": 0.0, "soft": 0.0}
    case, plain = (Case(*of, "classification") for of in (("muse", "", off), ("ce", "", {})))
    first, second = case.method(), plain.method()
    first.load_state_dict({f"student.network.{k.removeprefix('student.')}": v
                           for k, v in second.state_dict().items()}, strict=False)  # fmt: skip
    for method in (first, second):
        optimiser = torch.optim.SGD(method.parameters(), lr=0.1)
        for i in range(3):
            optimiser.zero_grad()
            method(plain.batch(i), moment(i)).total.backward()
            optimiser.step()
    mine, its = (m.predictors()["student"].state_dict() for m in (first, second))
    assert all(torch.equal(mine[name], its[name]) for name in its)


@pytest.mark.parametrize("negatives", ["all", "roll"])
def test_only_rolled_negatives_change_with_the_step(negatives):
    case = Case("muse", "", {"negatives": negatives}, "classification")
    method = case.method()
    seen = [method(case.batch(), moment(step)).losses for step in range(6)]
    for name in seen[0]:
        changes = any(not torch.equal(seen[0][name], later[name]) for later in seen)
        keyed = negatives == "roll" and name.split("/")[0] in ("mutual", "self")
        assert changes == keyed, name
