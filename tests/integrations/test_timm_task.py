"""A criterion as timm's task: its optimizers, schedules, averages, checkpoints and evaluators."""

import sys
from importlib import import_module, reload

import pytest
import timm.task
import torch
import torch.distributed as dist
from timm.data import Mixup
from timm.optim import create_optimizer_v2
from timm.scheduler import create_scheduler_v2
from timm.utils import CheckpointSaver
from torch import nn

import selfdistill
from selfdistill.core import ArtifactError, ConfigError
from selfdistill.integrations.timm_task import DistillationTask
from selfdistill.models import build


def small(seed: int = 0) -> nn.Module:
    torch.manual_seed(seed)
    return build("cifar/resnet8", num_classes=10)


def pictures(n: int = 8) -> tuple[torch.Tensor, torch.Tensor]:
    torch.manual_seed(1)
    return torch.randn(n, 3, 16, 16), torch.arange(n) % 10


def task_of(name="muse", **keywords) -> DistillationTask:
    criterion = selfdistill.wrap(small(), name, example=pictures()[0][:2], classes=10, **keywords)
    return DistillationTask(criterion, verbose=False)


def optimizer_of(task):
    return create_optimizer_v2(task.get_trainable_module(), "sgd", lr=0.05, weight_decay=1e-3)


def train(task, optimizer, steps, scheduler=None):
    """As timm's script does it; the losses."""
    images, labels = pictures()
    losses = []
    for step in range(steps):
        result = task.train()(images, labels)
        result["loss"].backward()
        torch.nn.utils.clip_grad_norm_(task.get_clip_parameters(), 5.0)
        optimizer.step()
        optimizer.zero_grad()
        task.update_ema(step=step + 1)
        if scheduler:
            scheduler.step_update(step + 1)
        losses.append(result["loss"].item())
    return losses


def test_timms_machinery_trains_it():
    task = task_of()
    assert isinstance(task, timm.task.TrainingTask)
    optimizer = optimizer_of(task)
    scheduler, epochs = create_scheduler_v2(
        optimizer, "cosine", num_epochs=2, updates_per_epoch=6, step_on_epochs=False
    )
    losses = train(task, optimizer, epochs * 6, scheduler)
    assert losses[-1] < 0.9 * losses[0]
    assert int(task.criterion.step) == 12
    trained = {id(p) for group in optimizer.param_groups for p in group["params"]}
    assert trained == {id(p) for p in task.criterion.parameters() if p.requires_grad}


def test_a_scaled_group_keeps_its_ratio_under_timms_scheduler():
    task = task_of("afd", peers=[small(1)], discriminator_lr_scale=0.1)
    optimizer = create_optimizer_v2(task.criterion.param_groups(lr=0.05), "sgd", lr=0.05)
    scheduler, _ = create_scheduler_v2(
        optimizer, "cosine", num_epochs=2, updates_per_epoch=2, step_on_epochs=False
    )
    scheduler.step_update(2)
    rates = [group["lr"] for group in optimizer.param_groups]
    assert rates[0] < 0.05
    assert rates[1] == pytest.approx(0.1 * rates[0])


def test_the_result_holds_loss_output_and_terms():
    task, (images, labels) = task_of(), pictures()
    result = task(images, labels)
    terms = {n: value for n, value in result.items() if n not in ("loss", "output")}
    assert {"task", "mutual/1", "self/3"} <= terms.keys()
    assert sum(terms.values()).item() == pytest.approx(result["loss"].item())
    assert result["output"].shape == (8, 10)
    assert [n for n, value in result.items() if value.requires_grad] == ["loss"]


def test_the_student_is_what_is_evaluated():
    task, (images, labels) = task_of(), pictures()
    student = task.get_eval_model()
    assert student is task.criterion.method.predictors()["student"]
    evaluator = task.create_evaluator()
    evaluator.update(student.eval()(images), labels)
    assert 0 <= evaluator.compute()["top1"] <= 100


def test_checkpoints_are_timms_and_restore_everything(tmp_path):
    task = task_of()
    optimizer = optimizer_of(task)
    task.setup_ema(decay=0.5)
    saver = CheckpointSaver(
        task.get_eval_model(), optimizer, task=task, checkpoint_dir=tmp_path, recovery_dir=tmp_path
    )
    train(task, optimizer, 3)
    saver.save_checkpoint(0, metric=1.0)
    saved = torch.load(tmp_path / "last.pth.tar", weights_only=True)
    assert saved["state_dict"].keys() == small().state_dict().keys()
    want = train(task, optimizer, 2)

    other = task_of()
    again = optimizer_of(other)
    assert timm.task.resume_task_checkpoint(other, tmp_path / "last.pth.tar", again) == 1
    other.setup_ema(decay=0.5)
    timm.task.load_task_ema_checkpoint(other, tmp_path / "last.pth.tar")
    assert train(other, again, 2) == want
    for kind in (False, True):
        first, second = task.get_checkpoint_state(ema=kind), other.get_checkpoint_state(ema=kind)
        assert first.keys() == second.keys()
        assert len(first) == 2
        for part in first:
            assert all(torch.equal(second[part][name], t) for name, t in first[part].items())


def test_the_average_follows_student_and_exits():
    task = task_of()
    average = task.setup_ema(decay=0.5)
    before = {n: p.clone() for n, p in average.module.named_parameters()}
    train(task, optimizer_of(task), 2)
    moved = {n for n, p in average.module.named_parameters() if not torch.equal(p, before[n])}
    assert any("exits" in name for name in moved)
    student = task.get_eval_model(ema=True)
    assert student is not task.get_eval_model()
    assert "method.student.network.fc.weight" in moved
    live, mean = task.get_eval_model().fc.weight, student.fc.weight
    assert not torch.equal(live, mean)


def test_a_teacher_is_in_no_checkpoint():
    task = task_of("kd", teacher=small(3))
    assert not any("teacher" in name for name in task.get_task_state())
    weight = task.criterion.method.teacher.network.fc.weight.clone()
    train(task, optimizer_of(task), 1)
    assert torch.equal(task.criterion.method.teacher.network.fc.weight, weight)


def test_a_checkpoint_of_another_method_is_told():
    with pytest.raises(ArtifactError, match="does not fit this method"):
        task_of("ce").load_task_state(task_of("muse").get_task_state())
    with pytest.raises(ArtifactError, match="size mismatch"):
        task_of("muse").load_task_state(task_of("muse", bottleneck="byot").get_task_state())
    task_of("muse").load_task_state(None)  # a plain student's
    task_of("ce").load_task_state(task_of("muse").get_task_state(), strict=False)


def test_clipping_may_leave_the_head_out():
    task = task_of()
    everything, without_head = (
        task.get_clip_parameters(exclude_head=head) for head in (False, True)
    )
    head = {id(p) for p in task.get_eval_model().fc.parameters()}
    assert {id(p) for p in everything} - {id(p) for p in without_head} == head


@pytest.mark.slow
def test_compiled_it_gives_the_same_losses():
    want = train(task := task_of(), optimizer_of(task), 2)
    task = task_of()
    compiled = task.compile(backend="eager")
    assert task.get_eval_model() is compiled
    assert train(task, optimizer_of(task), 2) == pytest.approx(want)
    assert task.get_checkpoint_state()["state_dict"].keys() == small().state_dict().keys()
    torch._dynamo.reset()


def test_distributed_it_gives_the_same_losses(tmp_path):
    want = train(task := task_of(), optimizer_of(task), 2)
    dist.init_process_group("gloo", init_method=f"file://{tmp_path}/meet", rank=0, world_size=1)
    try:
        task = task_of()
        optimizer = optimizer_of(task)
        task.prepare_distributed()
        with task.no_sync():
            assert train(task, optimizer, 2) == pytest.approx(want)
        assert task.get_eval_model() is task.criterion.method.predictors()["student"]
        assert task.get_checkpoint_state()["state_dict"].keys() == small().state_dict().keys()
    finally:
        dist.destroy_process_group()


def test_mixed_images_have_mixed_labels():
    mixup = Mixup(mixup_alpha=0.8, num_classes=10, label_smoothing=0.1)
    images, labels = mixup(*pictures())
    assert task_of()(images, labels)["loss"].isfinite()


@pytest.mark.parametrize(
    ("name", "sentence"),
    [
        ("crd", "the index of each image"),
        ("ddgsd", "2 augmentations of each image"),
        ("cskd", "another image of the same class"),
    ],
)
def test_what_timms_loaders_do_not_give_is_refused(name, sentence):
    companions = {"teacher": small(1), "train_labels": pictures()[1]} if name == "crd" else {}
    with pytest.raises(ConfigError, match=f"needs {sentence}.*timm's loaders do not give"):
        task_of(name, **companions)


def test_an_old_timm_is_told(monkeypatch):
    module = import_module("selfdistill.integrations.timm_task")
    monkeypatch.setitem(sys.modules, "timm.task", None)
    with pytest.raises(ConfigError, match=r"timm>=1\.0\.27"):
        reload(module)


def test_what_is_no_classifier_is_refused():
    network = build("fpn/small", num_classes=3, in_channels=3)
    example = torch.zeros(2, 3, 32, 32)
    criterion = selfdistill.wrap(network, "ce", example=example, classes=3, task="segmentation")
    with pytest.raises(
        ConfigError, match="trains classifiers, and this criterion is for segmentation"
    ):
        DistillationTask(criterion)


def test_a_network_whose_layout_has_versions_is_restored():
    """torchvision's MNASNet loads nothing that does not say how old it is."""
    network = build("torchvision/mnasnet0_5", num_classes=10)
    criterion = selfdistill.wrap(network, "muse", example=pictures()[0][:2], classes=10)
    task = DistillationTask(criterion, verbose=False)
    state = {name: t.clone() + 1 for name, t in task.get_task_state().items()}
    task.load_task_state(state)
    again = task.get_task_state()
    assert all(torch.equal(again[name], t) for name, t in state.items())
