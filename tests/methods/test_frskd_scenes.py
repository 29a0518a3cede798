"""FRSKD where every place has scores or boxes are asked for, and distillation that starts late."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from offline_pairs import STAGES
from scene_pairs import CLASSES, SIDE, scene_batch, scene_method, scene_net, scene_task
from scipy.special import rel_entr, softmax
from torch import nn

from selfdistill.core import IGNORE, METHODS, Batch, ConfigError, Progress
from selfdistill.modules.anchor_head import AnchorHead
from selfdistill.taps import Taps
from selfdistill.tasks import Detection


def frskd(**options):
    return scene_method("frskd", scene_net(), **options)


def at(step: int, total: int = 60) -> Progress:
    return Progress(*(torch.tensor(n) for n in (0, 0, step, total)))


def test_the_self_teacher_speaks_at_the_finest_size():
    outputs = frskd().eval().predict(scene_batch().inputs)
    assert outputs["student"].shape == (4, len(CLASSES), SIDE // 4, SIDE // 4)
    assert outputs["teacher"].shape == (4, len(CLASSES), SIDE, SIDE)


def test_terms_equal_scipy(progress):
    method, batch = frskd(soft_weight=3.0, temperature=2.0).eval(), scene_batch()
    losses, outputs = method(batch, progress).losses, method.predict(batch.inputs)
    task = scene_task()
    torch.testing.assert_close(losses["task"], task.loss(outputs["student"], batch.targets))
    torch.testing.assert_close(losses["teacher"], task.loss(outputs["teacher"], batch.targets))
    size = outputs["teacher"].shape[-2:]
    student = F.interpolate(outputs["student"], size=size, mode="bilinear")
    p, q = (softmax(z.detach().double() / 2, axis=1) for z in (outputs["teacher"], student))
    valid = (batch.targets != IGNORE).numpy()
    want = 3 * 4 * rel_entr(p, q).sum(1)[valid].mean()  # a mean over the pixels that count
    assert 0 < valid.sum() < valid.size
    assert losses["soft"].item() == pytest.approx(want, rel=1e-4)
    assert losses.keys() == {"task", "teacher", "soft", *(f"attention/{i}" for i in (1, 2, 3, 4))}


def test_labels_train_every_level_of_the_pyramid_and_nothing_else_does(progress):
    method, batch = frskd(), scene_batch()
    losses = method(batch, progress).losses
    own = [*method.pyramid.parameters(), *method.readout.parameters(), *method.head.parameters()]
    grads = torch.autograd.grad(losses["teacher"], own, retain_graph=True)
    assert all(g.abs().sum() > 0 for g in grads)
    for name in losses.keys() - {"teacher"}:
        grads = torch.autograd.grad(losses[name], own, retain_graph=True, allow_unused=True)
        assert all(g is None for g in grads), name


def test_pixels_that_do_not_count_teach_nobody(progress):
    method, batch = frskd().eval(), scene_batch()
    none = batch._replace(targets=torch.full_like(batch.targets, IGNORE))
    losses = method(none, progress).losses
    assert losses["task"] == losses["teacher"] == losses["soft"] == 0
    assert method(batch, progress).losses["soft"] > 0


@pytest.mark.parametrize(("start", "ramp"), [(0.0, 0.0), (2 / 3, 1 / 3), (0.5, 0.0), (0.0, 0.5)])
def test_distillation_joins_late_and_grows(start, ramp):
    method, batch = frskd(start_fraction=start, warmup_fraction=ramp).eval(), scene_batch()
    full = frskd().eval()(batch, at(0)).losses
    for step in range(0, 60, 7):
        losses = method(batch, at(step)).losses
        t = min((step / 60 - start) / ramp, 1) if ramp else 1
        height = np.exp(-5 * (1 - t) ** 2) if step / 60 >= start else 0
        for name, loss in losses.items():
            share = 1 if name in ("task", "teacher") else height
            assert loss.item() == pytest.approx(share * full[name].item(), rel=1e-4), name


def test_parts_of_a_run_that_are_none():
    for chosen in (
        {"start_fraction": 1.0},
        {"start_fraction": -0.1},
        {"warmup_fraction": 1.5},
        {"warmup_fraction": -1.0},
    ):
        with pytest.raises(ConfigError, match=r"are parts of a run: 0 … 0\.99, and 0 … 1"):
            frskd(**chosen)


class Detector(nn.Module):
    """The stages of a network for scenes, and boxes seen on some of their maps."""

    def __init__(self, maps: int) -> None:
        super().__init__()
        stages = scene_net()
        del stages.classify
        for name, stage in stages.named_children():
            self.add_module(name, stage)
        self.detect = AnchorHead([6, 8, 10, 12][-maps:], 2)
        self.count = maps

    def forward(self, x):
        maps = [x := self.get_submodule(name)(x) for name in STAGES]
        return self.detect(maps[-self.count :])


@pytest.mark.parametrize("maps", [1, 3])
def test_outputs_of_another_form_than_the_self_teachers_are_not_compared(maps, progress):
    torch.manual_seed(0)
    task = Detection("ab", torch.zeros(2, 3, SIDE, SIDE))
    method = METHODS["frskd"](Taps(Detector(maps), STAGES, example=task.example), task)
    boxes = torch.tensor([[[0.0, 2, 2, 12, 9]], [[1.0, 0, 0, 8, 8]]])
    batch = Batch(torch.randn(2, 3, SIDE, SIDE), boxes, torch.arange(2))
    step = method(batch, progress)
    assert ("soft" in step.losses) == (maps == 1)
    assert {"task", "teacher", "attention/4"} <= step.losses.keys()
    assert step.total.isfinite()
