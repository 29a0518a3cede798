"""The OFA loss against its authors' code and numpy, its branches, and unlike architectures."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from offline_pairs import STAGES, offline, reached, teacher_net
from torch import nn

from selfdistill.core import METHODS, ConfigError
from selfdistill.methods.ofa_kd import build_branch, enhanced_target
from selfdistill.recipe.build_method import build_method
from selfdistill.tasks import Classification

B, K = 8, 5
LABELS = torch.arange(B) % K


def wave(frequency: float) -> torch.Tensor:
    steps = torch.arange(B * K, dtype=torch.float64)
    return (frequency * steps).sin().view(B, K).float()


# values of the authors' ofa_loss for these logits
@pytest.mark.parametrize(
    ("modulation", "temperature", "value"),
    [(1.0, 1.0, 2.163278102874756), (1.5, 1.0, 1.8893954753875732), (0.8, 2.0, 2.107989549636841)],
)
def test_loss_has_the_value_of_the_authors_code(modulation, temperature, value):
    target = enhanced_target(4 * wave(0.53), LABELS, modulation, temperature)
    logs = F.log_softmax(3 * wave(0.37) / temperature, 1)
    assert -(target * logs).sum(1).mean().item() == pytest.approx(value, rel=1e-5)


def test_without_modulation_the_target_is_the_teachers_distribution():
    reference = torch.randn(B, K)
    target = enhanced_target(reference, LABELS, 1.0, 2.0)
    torch.testing.assert_close(target, (reference / 2).softmax(1))


@pytest.mark.parametrize("modulation", [0.7, 1.5, 2.0])
def test_label_is_enhanced_by_the_teachers_certainty(modulation):
    reference = torch.randn(B, K)
    p = np.exp(reference.double().numpy())
    p /= p.sum(1, keepdims=True)
    want = p**modulation
    rows = np.arange(B)
    want[rows, LABELS] = (1 + p[rows, LABELS]) ** modulation - 1
    got = enhanced_target(reference, LABELS, modulation, 1.0)
    torch.testing.assert_close(got.double(), torch.from_numpy(want), rtol=1e-5, atol=1e-6)


def test_label_of_a_mixture_is_its_largest_part():
    mixtures = F.one_hot(LABELS, K) * 0.6 + F.one_hot(LABELS.roll(1), K) * 0.4
    reference = torch.randn(B, K)
    torch.testing.assert_close(
        enhanced_target(reference, mixtures, 1.5, 1.0), enhanced_target(reference, LABELS, 1.5, 1.0)
    )


def test_terms_are_those_of_outputs_and_branches(tiny_net, tiny_task, batch, progress):
    options = {"modulation": 1.5, "temperature": 2.0, "soft_weight": 0.5, "branch_weight": 3.0}
    method = offline("ofa-kd", tiny_net, tiny_task, supervised_weight=0.7, **options)
    losses = method(batch, progress).losses
    outputs, features = method.student.forward_features(batch.inputs)
    target = enhanced_target(method.teacher(batch.inputs), batch.targets, 1.5, 2.0)
    logits = [outputs, *(b(x) for b, x in zip(method.branches, features.values(), strict=True))]
    for name, z in zip(["soft", *(f"branch/{i}" for i in range(1, 5))], logits, strict=True):
        logs = z.detach().double().numpy() / 2
        logs -= np.log(np.exp(logs).sum(1, keepdims=True))
        want = -(target.double().numpy() * logs).sum(1).mean()
        want *= 0.5 if name == "soft" else 3.0
        assert losses[name].item() == pytest.approx(want, rel=1e-4)
    want = 0.7 * F.cross_entropy(outputs, batch.targets)
    torch.testing.assert_close(losses["task"], want)


def test_a_branch_halves_the_map_as_often_as_stages_follow(tiny_net, tiny_task):
    method = offline("ofa-kd", tiny_net, tiny_task)  # 8, 8, 12 and 16 channels; the teacher 24
    shapes = [[8, 16, 32, 24], [8, 16, 24], [12, 24], [16, 24]]
    for branch, widths, side in zip(method.branches, shapes, (16, 8, 4, 2), strict=True):
        x, *blocks = torch.zeros(2, widths[0], side, side), *branch[:-1]
        for block, width in zip(blocks, widths[1:], strict=True):
            x = block(x)
            assert x.shape[1] == width
        halvings = len(blocks) if len(branch) > 2 or isinstance(blocks[0], nn.Sequential) else 0
        assert x.shape[-1] == max(1, side >> halvings)


def test_wider_network_sets_the_width(tiny_task):
    branch = build_branch(4, 10, tiny_task, halvings=1)
    assert branch[-1][-1].in_features == 10
    assert branch[-1][-1].weight.std() < 0.04
    assert not branch[-1][-1].bias.any()


def test_a_branch_trains_itself_and_what_lies_before_it(tiny_net, tiny_task, batch, progress):
    method = offline("ofa-kd", tiny_net, tiny_task).train()
    losses = method(batch, progress).losses
    for i in range(1, 5):
        assert reached(losses[f"branch/{i}"], tiny_net) == set(STAGES[:i])
        assert reached(losses[f"branch/{i}"], method.branches) == {str(i - 1)}
    method(batch, progress).total.backward()
    assert all(p.grad is None for p in method.teacher.parameters())


def transformer() -> nn.Module:
    import timm

    torch.manual_seed(3)
    sizes = {"img_size": 16, "patch_size": 4, "depth": 4, "embed_dim": 16, "num_heads": 2}
    return timm.create_model("vit_tiny_patch16_224", num_classes=K, **sizes)


@pytest.mark.parametrize("student_is_transformer", [False, True])
def test_unlike_architectures(student_is_transformer, tiny_net, batch, progress):
    pair = [transformer(), teacher_net()] if student_is_transformer else [tiny_net, transformer()]
    task = Classification("abcde", torch.zeros(2, 3, 16, 16))
    method = build_method("ofa-kd", pair[0], task, teacher=pair[1]).train()
    step = method(batch, progress)
    step.total.backward()
    assert len(method.branches) == 4
    assert step.total.isfinite()
    assert all(p.grad is not None for p in method.branches.parameters())
    if student_is_transformer:  # tokens of 4×4 patches, as a map
        assert {shape[1:] for shape in method.student.shapes.values()} == {(4, 4)}


def test_without_weights(tiny_net, tiny_task, batch, progress):
    method = offline("ofa-kd", tiny_net, tiny_task, soft_weight=0.0, branch_weight=0.0)
    assert method(batch, progress).losses.keys() == {"task"}
    assert not list(method.branches.parameters())
    with pytest.raises(ConfigError, match="do not train the student's output"):
        offline("ofa-kd", tiny_net, tiny_task, supervised_weight=0.0, soft_weight=0.0)


def test_wrong_modulation(tiny_net, tiny_task):
    with pytest.raises(ConfigError, match="exponent above 0"):
        offline("ofa-kd", tiny_net, tiny_task, modulation=0.0)


def test_its_name_is_in_the_registry():
    assert METHODS["ofa-kd"].kind == "offline"
