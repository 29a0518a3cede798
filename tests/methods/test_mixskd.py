"""MixSKD against formulas of its parts, limits of the mixing, and where its gradients stop."""

import copy
import math
from collections import OrderedDict

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from selfdistill.core import METHODS, ConfigError, Frozen, options, trained_state
from selfdistill.methods import mixskd as file
from selfdistill.models import build
from selfdistill.taps import Taps
from selfdistill.tasks import Classification

NAMES = ["stage1", "stage2", "stage3", "stage4"]
ORDER = torch.tensor([3, 0, 2, 7, 1, 4, 6, 5])  # 2 and 6 stay where they are


def mixskd(tiny_net, tiny_task, taps=NAMES, **keywords):
    torch.manual_seed(0)
    student = Taps(tiny_net, taps, example=tiny_task.example)
    return METHODS["mixskd"](student, tiny_task, **keywords)


@pytest.fixture
def mixing(monkeypatch):
    """Sets the share and the partners of all later steps."""

    def fix(ratio, partners=ORDER):
        monkeypatch.setattr(file, "beta", lambda *args: torch.tensor(ratio))
        monkeypatch.setattr(file, "batch_permutation", lambda *args: partners)

    return fix


def reference_pass(method, inputs):
    """Outputs and last maps, the student's first, without the method's own pass."""
    net = method.student.network
    stages = [net.stage1, net.stage2, net.stage3, net.stage4]
    features, x = [], inputs
    for stage in stages:
        x = stage(x)
        features.append(x)
    ends = [features[-1]]
    outputs = [net.fc(x.mean((2, 3)))]
    for k in range(3):
        own = method.stages[k](features[k])
        ends.append(own)
        outputs.append(method.heads[k](own))
    return outputs, ends


def kl(out, target):
    return 9 * F.kl_div((out / 3).log_softmax(1), (target / 3).softmax(1), reduction="batchmean")


def test_terms_by_their_formulas(tiny_net, tiny_task, batch, progress, mixing):
    mixing(0.3)
    method = mixskd(tiny_net, tiny_task)
    before = copy.deepcopy(method.state_dict())
    step = method(batch, progress)
    method.load_state_dict(before)
    x, y = batch.inputs, F.one_hot(batch.targets, 5).float()
    soft_labels = 0.3 * y + 0.7 * y[ORDER]
    with torch.no_grad():
        outputs, maps = reference_pass(method, torch.cat([x, 0.3 * x + 0.7 * x[ORDER]]))
        torch.testing.assert_close(step.outputs, outputs[0][:8])
        bars = [0.3 * z[:8] + 0.7 * z[:8][ORDER] for z in outputs]
        tildes = [z[8:] for z in outputs]
        map_bars = [0.3 * f[:8] + 0.7 * f[:8][ORDER] for f in maps]
        map_tildes = [f[8:] for f in maps]
        bar, tilde = (method.self_teacher(torch.cat(m, 1)) for m in (map_bars, map_tildes))
        want = {}
        for k in range(4):
            of = f"/{k}" if k else ""
            want[f"task{of}"] = F.cross_entropy(outputs[k][:8], batch.targets)
            want[f"mixed{of}"] = F.cross_entropy(tildes[k], soft_labels)
            want[f"feature{of}"] = (map_bars[k] - map_tildes[k]).square().mean()
            discriminator = method.discriminators[k]
            first, second = (
                discriminator(map_bars[k]).sigmoid(),
                discriminator(map_tildes[k]).sigmoid(),
            )
            right = [first[:, 0], 1 - first[:, 1], 1 - second[:, 0], second[:, 1]]
            want[f"adversarial{of}"] = -torch.stack(right).log().mean()
            if k:
                want[f"branch/{k}"] = kl(bars[k], tildes[k]) + kl(tildes[k], bars[k])
        want["soft"] = kl(bars[0], tilde) + kl(tildes[0], bar)
        want["self_teacher"] = F.cross_entropy(bar, soft_labels) + F.cross_entropy(
            tilde, soft_labels
        )
    assert step.losses.keys() == want.keys()
    for name, value in want.items():
        torch.testing.assert_close(step.losses[name], value, rtol=1e-4, atol=1e-6, msg=name)
    uncrossed = kl(bars[0], bar) + kl(tildes[0], tilde)
    assert abs(uncrossed - want["soft"]) > 1e-4
    torch.testing.assert_close(step.total, sum(want.values()))


def test_nothing_is_mixed_at_a_share_of_one(tiny_net, tiny_task, batch, progress, mixing):
    mixing(1.0)
    losses = mixskd(tiny_net, tiny_task)(batch, progress).losses
    for k in (1, 2, 3):
        assert losses[f"branch/{k}"].abs() < 1e-6
    for of in ("", "/1", "/2", "/3"):
        assert losses[f"feature{of}"] < 1e-12
        torch.testing.assert_close(losses[f"mixed{of}"], losses[f"task{of}"])
    assert losses["soft"] > 1e-3


def test_mixing_with_oneself_changes_nothing():
    x = torch.randn(8, 5)
    pair = file.Mixing(torch.arange(8), torch.tensor(0.5)).pair(torch.cat([x, 2 * x]))
    torch.testing.assert_close(pair.mixture, x)
    assert torch.equal(pair.of_mixture, 2 * x)


def test_linear_networks_have_nothing_to_learn_from_mixing(tiny_task, batch, progress):
    torch.manual_seed(0)
    sizes = [(3, 8, 1), (8, 8, 2), (8, 12, 2), (12, 16, 2)]
    parts = {f"stage{i}": nn.Conv2d(*s[:2], 3, s[2], 1) for i, s in enumerate(sizes, 1)}
    parts |= {"pool": nn.AdaptiveAvgPool2d(1), "flat": nn.Flatten(), "fc": nn.Linear(16, 5)}
    losses = mixskd(nn.Sequential(OrderedDict(parts)), tiny_task)(batch, progress).losses
    assert all(losses[f"feature{of}"] < 1e-12 for of in ("", "/1", "/2", "/3"))
    assert all(losses[f"branch/{k}"].abs() < 1e-6 for k in (1, 2, 3))


def reached(method, loss) -> set[str]:
    """The parts that a term's gradient reaches: "stage1", "fc", "stages 1", "heads 1", …"""
    names, parameters = zip(*method.named_parameters(), strict=True)
    grads = torch.autograd.grad(
        loss, [p for p in parameters if p.requires_grad], retain_graph=True, allow_unused=True
    )
    names = [n.split(".") for n, p in zip(names, parameters, strict=True) if p.requires_grad]
    hit = [n for n, g in zip(names, grads, strict=True) if g is not None and g.any()]
    single = {"student": lambda n: n[2], "self_teacher": lambda n: n[0]}
    return {single.get(n[0], lambda n: f"{n[0]} {int(n[1]) + 1}")(n) for n in hit}


def test_every_term_reaches_its_parts_and_no_other(tiny_net, tiny_task, batch, progress):
    method = mixskd(tiny_net, tiny_task)
    losses = method(batch, progress).losses
    trunk = set(NAMES)
    parts = {name: reached(method, loss) for name, loss in losses.items()}
    for term in ("task", "mixed", "soft"):
        assert parts.pop(term) == trunk | {"fc"}, term
    assert parts.pop("feature") == trunk
    assert parts.pop("adversarial") == trunk | {"discriminators 1"}
    copies = {f"stages {k}" for k in (1, 2, 3)}
    assert parts.pop("self_teacher") == trunk | copies | {"self_teacher"}
    for k in (1, 2, 3):
        branch = set(NAMES[:k]) | {f"stages {k}"}
        assert parts.pop(f"feature/{k}") == branch
        assert parts.pop(f"adversarial/{k}") == branch | {f"discriminators {k + 1}"}
        for term in ("task", "mixed", "branch"):
            assert parts.pop(f"{term}/{k}") == branch | {f"heads {k}"}, term
    assert not parts


def test_targets_of_soft_terms_stand_still(tiny_net, tiny_task):
    method = mixskd(tiny_net, tiny_task)
    out, target = (torch.randn(8, 5, requires_grad=True) for _ in range(2))
    method._soft_loss(out, target).backward()
    assert out.grad.abs().sum() > 0
    assert target.grad is None


def test_maps_work_against_the_discriminators(tiny_net, tiny_task, batch, progress):
    released = mixskd(copy.deepcopy(tiny_net), tiny_task, variant="released")
    paper = mixskd(tiny_net, tiny_task)
    for of in ("", "/1", "/2", "/3"):
        first, second = (m(batch, progress).losses[f"adversarial{of}"] for m in (paper, released))
        torch.testing.assert_close(first, second)
        turned, plain = (
            torch.autograd.grad(loss, m.student.network.stage1[0].weight)[0]
            for loss, m in ((first, paper), (second, released))
        )
        assert plain.abs().sum() > 0
        torch.testing.assert_close(turned, -plain)


def test_discriminators_are_trained(tiny_net, tiny_task, batch, progress):
    method = mixskd(tiny_net, tiny_task)
    before = copy.deepcopy(method.discriminators.state_dict())
    optimizer = torch.optim.SGD(method.param_groups(), lr=0.1)
    given = {id(p) for group in optimizer.param_groups for p in group["params"]}
    assert {id(p) for p in method.discriminators.parameters()} <= given
    method(batch, progress).total.backward()
    optimizer.step()
    after = method.discriminators.state_dict()
    assert not any(torch.equal(after[n], before[n]) for n in after)


def test_undecided_discriminators_cost_log_two(tiny_net, tiny_task, batch, progress):
    method = mixskd(tiny_net, tiny_task)
    for parameter in method.discriminators.parameters():
        nn.init.zeros_(parameter)
    losses = method(batch, progress).losses
    terms = [losses[f"adversarial{of}"].item() for of in ("", "/1", "/2", "/3")]
    assert terms == pytest.approx([math.log(2)] * 4)


def test_released_variant_leaves_out_what_the_script_does(tiny_net, tiny_task, batch, progress):
    method = mixskd(tiny_net, tiny_task, variant="released")
    paper = mixskd(copy.deepcopy(tiny_net), tiny_task)
    losses, all_ = method(batch, progress).losses, paper(batch, progress).losses
    left_out = {"self_teacher"} | {f"mixed{of}" for of in ("", "/1", "/2", "/3")}
    assert losses.keys() == all_.keys() - left_out
    for name, value in losses.items():
        torch.testing.assert_close(value, all_[name], msg=name)


def test_released_variant_keeps_its_random_parts(tiny_net, tiny_task):
    method = mixskd(tiny_net, tiny_task, variant="released")
    frozen = [m for m in method.modules() if isinstance(m, Frozen)]
    assert len(frozen) == 5
    assert not any(p.requires_grad for m in frozen for p in m.parameters())
    kept = trained_state(method)
    assert sum(name.startswith(("self_teacher.", "discriminators.")) for name in kept) == 19


def test_without_further_terms_it_is_deep_supervision(tiny_net, tiny_task, batch, progress):
    off = {"soft_weight": 0.0, "feature_weight": 0.0, "adversarial_weight": 0.0}
    method = mixskd(tiny_net, tiny_task, variant="released", **off)
    assert method(batch, progress).losses.keys() == {"task", "task/1", "task/2", "task/3"}
    assert len(method.discriminators) == 0


def test_weights_scale_their_terms(tiny_net, tiny_task, batch, progress):
    plain = mixskd(copy.deepcopy(tiny_net), tiny_task)(batch, progress).losses
    scales = {"soft": 0.5, "feature": 3.0, "adversarial": 0.1}
    weights = {f"{name}_weight": scale for name, scale in scales.items()}
    scaled = mixskd(tiny_net, tiny_task, **weights)(batch, progress).losses
    scales["branch"] = 0.5
    for name, value in plain.items():
        torch.testing.assert_close(scaled[name], scales.get(name.split("/")[0], 1.0) * value)


def test_each_step_mixes_anew(tiny_net, tiny_task, batch, progress):
    method = mixskd(tiny_net, tiny_task).eval()
    first, again, later, other = (
        method(batch, progress._replace(step=torch.tensor(i), seed=torch.tensor(s))).losses["mixed"]
        for i, s in ((0, 0), (0, 0), (1, 0), (0, 1))
    )
    assert torch.equal(first, again)
    assert len({first.item(), later.item(), other.item()}) == 3


def test_sizes_are_those_of_the_public_code():
    with torch.device("meta"):
        network = build("cifar/resnet18", num_classes=100, in_channels=3)
        task = Classification([str(i) for i in range(100)], torch.zeros(2, 3, 32, 32))
        method = METHODS["mixskd"](Taps(network, example=task.example), task)

    def size(*modules):
        return sum(p.numel() for m in modules for p in m.parameters())

    assert size(network) == 11_220_132
    assert size(method.stages, method.heads) == 30_060_076
    assert size(method.self_teacher) == 1_099_876
    assert size(method.discriminators) == 263_688
    assert size(method) - size(method.discriminators) == 42_380_084


def test_only_the_student_stays(tiny_net, tiny_task):
    assert mixskd(tiny_net, tiny_task).predictors() == {"student": tiny_net}


@pytest.mark.parametrize(
    ("taps", "keywords", "sentence"),
    [
        (["stage4"], {}, "there is only one tap"),
        (NAMES, {"mixup_alpha": 0.0}, "mixup_alpha, .*, is above 0 and not 0.0"),
        (["stage2", "stage1"], {}, "Sequential cannot be cut into stages"),
    ],
)
def test_wrong_options_are_told(taps, keywords, sentence, tiny_net, tiny_task):
    with pytest.raises(ConfigError, match=sentence):
        mixskd(tiny_net, tiny_task, taps, **keywords)


def test_defaults():
    defaults = {o.name: o.default for o in options(METHODS["mixskd"]).values()}
    weights = {"soft_weight": 1.0, "feature_weight": 1.0, "adversarial_weight": 1.0}
    assert defaults == {"variant": "paper", "mixup_alpha": 0.4, "temperature": 3.0} | weights
