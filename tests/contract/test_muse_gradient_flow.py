"""Which term of MUSE trains which part of the network, term by term."""

import copy

import pytest
import torch
from contract_cases import Case, moment

TRUNK = {f"stage{i}" for i in range(1, 5)}


def group(name: str) -> str:
    """The part that a parameter belongs to: "stage2", "fc", "bottleneck 1", "critic self 3", …

    What belongs to a peer is called "peer stage2", "peer bottleneck 1", …
    """
    parts = name.split(".")
    if parts[0] == "student":
        return parts[2]
    if parts[0] == "peers":
        return f"peer {parts[3]}"
    if parts[1].isdigit():  # of muse-online, whose networks are numbered, the student first
        return ("peer " if parts[1] == "1" else "") + group(".".join([parts[0], *parts[2:]]))
    if parts[0] == "critics":
        return f"critic {parts[1]} {int(parts[2]) + 1}"
    return f"{parts[1].removesuffix('s')} {int(parts[2]) + 1}"


def reached(options, name: str = "muse") -> dict[str, set[str]]:
    """{term: the parts that its gradient reaches, by values that are not all zero}."""
    case = Case(name, "", options, "classification")
    method = case.method()
    step = method(case.batch(), moment())
    trained = ((n, p) for n, p in method.named_parameters() if p.requires_grad)
    names, parameters = zip(*trained, strict=True)
    parts = {}
    for term, loss in step.losses.items():
        grads = torch.autograd.grad(loss, parameters, retain_graph=True, allow_unused=True)
        hit = (n for n, g in zip(names, grads, strict=True) if g is not None and g.abs().max() > 0)
        parts[term] = {group(name) for name in hit}
    return parts


def until(i: int) -> set[str]:
    return {f"stage{j}" for j in range(1, i + 1)}


def test_every_term_reaches_its_parts_and_no_other():
    parts = reached({})
    assert parts.pop("task") == TRUNK | {"fc"}
    for i in (1, 2, 3):
        exit_ = until(i) | {f"bottleneck {i}"}
        assert parts.pop(f"task/{i}") == exit_ | {f"head {i}"}
        assert parts.pop(f"soft/{i}") == exit_ | {f"head {i}"}
        assert parts.pop(f"mutual/{i}") == TRUNK | {f"bottleneck {i}", f"critic mutual {i}"}
        assert parts.pop(f"self/{i}") == exit_ | {f"critic self {i}"}
    assert not parts


def test_the_factors_of_a_product_reach_what_they_reach_alone():
    assert reached({"combine": "mul"}) == reached({})


def test_raw_features_go_around_the_exits():
    parts = reached({"feature_source": "raw"})
    for i in (1, 2, 3):
        assert parts[f"mutual/{i}"] == TRUNK | {f"critic mutual {i}"}
        assert parts[f"self/{i}"] == until(i) | {f"critic self {i}"}


def test_encoded_view_goes_through_the_bottleneck():
    parts = reached({"feature_source": "raw", "si_global_view": "encoded"})
    for i in (1, 2, 3):
        assert parts[f"self/{i}"] == until(i) | {f"bottleneck {i}", f"critic self {i}"}


def test_detached_last_feature_learns_nothing_from_the_exits():
    parts = reached({"detach_last": True})
    for i in (1, 2, 3):
        assert parts[f"mutual/{i}"] == until(i) | {f"bottleneck {i}", f"critic mutual {i}"}


@pytest.mark.parametrize("combine", ["add", "mul"])
def test_a_teacher_trains_the_stages_before_the_last_and_nothing_of_its_own(combine):
    parts = reached({"combine": combine}, "muse-offline")
    assert parts.pop("task") == parts.pop("soft") == TRUNK | {"fc"}
    for i in (1, 2, 3):
        exit_ = until(i) | {f"bottleneck {i}"}
        assert parts.pop(f"mutual/{i}") == exit_ | {f"critic mutual {i}"}
        assert parts.pop(f"self/{i}") == exit_ | {f"critic self {i}"}
    assert not parts


@pytest.mark.parametrize("detached", [False, True])
def test_networks_train_one_another_through_their_last_features_alone(detached):
    parts = reached({"detach_peer": detached}, "muse-online")

    def of_peer(names: set[str]) -> set[str]:
        return {f"peer {name}" for name in names}

    assert parts.pop("task") == parts.pop("soft") == TRUNK | {"fc"}
    assert parts.pop("peer1/task") == parts.pop("peer1/soft") == of_peer(TRUNK | {"fc"})
    for i in (1, 2, 3):
        exit_ = until(i) | {f"bottleneck {i}"}
        mutual, own = exit_ | {f"critic mutual {i}"}, exit_ | {f"critic self {i}"}
        assert parts.pop(f"mutual/{i}") == mutual | (set() if detached else of_peer(TRUNK))
        assert parts.pop(f"self/{i}") == own
        peer_parts = of_peer(mutual) | (set() if detached else TRUNK)
        assert parts.pop(f"peer1/mutual/{i}") == peer_parts
        assert parts.pop(f"peer1/self/{i}") == of_peer(own)
    assert not parts


def gradients(method, case) -> dict[str, torch.Tensor]:
    """Of the sum of MI and SI, by parameter; None where there is none."""
    losses = method(case.batch(), moment()).losses
    total = sum(loss for name, loss in losses.items() if name.split("/")[0] in ("mutual", "self"))
    named = {n: p for n, p in method.named_parameters() if p.requires_grad}
    grads = torch.autograd.grad(total, list(named.values()), allow_unused=True)
    return {n: g for n, g in zip(named, grads, strict=True) if g is not None}


@pytest.mark.parametrize("negatives", ["all", "roll"])
def test_features_follow_the_product_and_critics_their_own_losses(negatives):
    """The product of Eq. 6, written out with critics that do not learn, has the same gradient."""
    options = {"negatives": negatives, "information_weight": 1.0}
    case = Case("muse", "", {"combine": "mul", "mi_weight": 2.0, **options}, "classification")
    method = case.method()
    got = gradients(method, case)
    plain = copy.deepcopy(method)
    plain.critics.combine, plain.critics.weights = "add", {"mutual": 1.0, "self": 1.0}
    losses = plain(case.batch(), moment()).losses
    product = sum(losses[f"mutual/{i}"] ** 2 * losses[f"self/{i}"] for i in (1, 2, 3))
    alone = sum(losses[f"{term}/{i}"] for term in ("mutual", "self") for i in (1, 2, 3))
    parameters = dict(plain.named_parameters())
    for name, gradient in got.items():
        followed = alone if name.startswith("critics") else product
        [want] = torch.autograd.grad(followed, [parameters[name]], retain_graph=True)
        torch.testing.assert_close(gradient, want, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize(
    ("name", "off"),
    [
        ("muse", {"information_weight": 0.0, "supervised_weight": 0.0, "soft_weight": 0.0}),
        ("muse-offline", {"information_weight": 0.0, "soft_weight": 0.0}),
        ("muse-online", {"information_weight": 0.0, "soft_weight": 0.0}),
    ],
)
def test_all_weights_zero_trains_the_student_as_plain_cross_entropy(name, off):
    case, plain = (Case(*of, "classification") for of in ((name, "", off), ("ce", "", {})))
    first, second = case.method(), plain.method()
    first.load_state_dict({f"student.network.{k.removeprefix('student.')}": v
                           for k, v in second.state_dict().items()}, strict=False)  # fmt: skip
    for method in (first, second):
        optimizer = torch.optim.SGD(method.param_groups(), lr=0.1)
        for i in range(3):
            optimizer.zero_grad()
            method(plain.batch(i), moment(i)).total.backward()
            optimizer.step()
    first_state, second_state = (m.predictors()["student"].state_dict() for m in (first, second))
    assert all(torch.equal(first_state[name], second_state[name]) for name in second_state)


@pytest.mark.parametrize("negatives", ["all", "roll"])
def test_only_rolled_negatives_change_with_the_step(negatives):
    case = Case("muse", "", {"negatives": negatives}, "classification")
    method = case.method()
    seen = [method(case.batch(), moment(step)).losses for step in range(6)]
    for name in seen[0]:
        changes = any(not torch.equal(seen[0][name], later[name]) for later in seen)
        keyed = negatives == "roll" and name.split("/")[0] in ("mutual", "self")
        assert changes == keyed, name
