"""The pass that feature distillation methods share: its terms, its features and its gradients."""

import copy

import pytest
import torch

from selfdistill.core import Provenance, StepOutput
from selfdistill.modules.feature_distillation import FeatureDistillation
from selfdistill.taps import Taps, Teacher


class Plain(FeatureDistillation):
    provenance = Provenance.PAPER

    def forward(self, batch, progress):
        outputs, losses, *_ = self.paired_forward(batch)
        return StepOutput(outputs, losses)


def plain(net, task, soft_weight):
    teacher = copy.deepcopy(net)
    torch.nn.init.normal_(teacher.fc.weight, generator=torch.Generator().manual_seed(0))
    networks = [Taps(n, ["stage1", "stage4"], example=task.example) for n in (net, teacher)]
    return Plain(networks[0], Teacher(networks[1]), task, soft_weight, 3.0).eval()


@pytest.mark.parametrize("soft_weight", [0.0, 0.4])
def test_terms_of_the_output(soft_weight, tiny_net, tiny_task, batch):
    method = plain(tiny_net, tiny_task, soft_weight)
    outputs, losses, _, _ = method.paired_forward(batch)
    assert torch.equal(outputs, tiny_net(batch.inputs))
    want = {"task": tiny_task.loss(outputs, batch.targets)}
    if soft_weight:
        reference = method.teacher(batch.inputs)
        want["soft"] = soft_weight * tiny_task.soft_loss(outputs, reference, 3.0)
    assert losses.keys() == want.keys()
    torch.testing.assert_close(losses, want)


def test_only_the_students_features_carry_a_gradient(tiny_net, tiny_task, batch):
    *_, student_features, teacher_features = plain(tiny_net, tiny_task, 0.0).paired_forward(batch)
    assert list(student_features) == list(teacher_features) == ["stage1", "stage4"]
    assert all(x.requires_grad for x in student_features.values())
    assert not any(x.requires_grad for x in teacher_features.values())


def test_the_teacher_is_frozen_and_left_behind(tiny_net, tiny_task):
    method = plain(tiny_net, tiny_task, 0.0).train()
    assert method.kind == "offline"
    assert list(method.predictors().values()) == [tiny_net]
    assert not any(p.requires_grad for p in method.teacher.parameters())
    assert not any(module.training for module in method.teacher.modules())


def test_no_output_of_a_teacher_carries_a_gradient(tiny_net, tiny_task, batch):
    teacher, inputs = plain(tiny_net, tiny_task, 0.0).teacher, batch.inputs.requires_grad_()
    _, features = teacher.forward_features(inputs)
    output, pooled_features, pooled = teacher.forward_pooled(inputs)
    tensors = [teacher(inputs), output, pooled, *features.values(), *pooled_features.values()]
    assert not any(tensor.requires_grad for tensor in tensors)
