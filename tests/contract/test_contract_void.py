"""Void pixels: no loss towards another head's outputs may look at them."""

import pytest
import torch
from contract_cases import Case, defaults, moment

SEGMENTATION = defaults("segmentation")


def gradient_of_soft_losses(case: Case, void: slice) -> list[torch.Tensor]:
    """Of the losses towards other outputs, by scores that the student's last layer gives."""
    method, batch = case.method(), case.batch()
    batch.targets[:, void] = 255
    scores: list[torch.Tensor] = []
    method.student.register_forward_hook(lambda *call: scores.append(call[-1]))
    step = method(batch, moment(500))
    soft = [loss for name, loss in step.losses.items() if "soft" in name and loss.requires_grad]
    outputs = step.outputs
    if not soft or not outputs.requires_grad:
        return []
    grads = torch.autograd.grad(sum(soft), outputs, allow_unused=True)
    return [g for g in grads if g is not None]


@pytest.mark.parametrize("case", SEGMENTATION, ids=str)
def test_soft_losses_leave_void_pixels_out(case):
    for gradient in gradient_of_soft_losses(case, slice(0, 8)):
        assert gradient.isfinite().all()
        assert gradient[:, :, :2].abs().max() == 0  # far from the border of the void half
        assert gradient.abs().max() > 0


@pytest.mark.parametrize("case", SEGMENTATION, ids=str)
def test_a_batch_without_a_label_is_no_fault(case):
    method, batch = case.method(), case.batch()
    batch.targets.fill_(255)
    losses = method(batch, moment(500)).losses
    assert all(loss.isfinite() for loss in losses.values())
