"""Parameter groups, timm's optimizers and BatchNorm statistics."""

import math

import pytest
import timm
import torch
from engine_runs import Slice, make, network, task
from test_optimizer import Pair, advance
from timm.optim import list_optimizers
from timm.optim import param_groups_weight_decay as timm_groups
from torch import nn
from torch.optim.swa_utils import update_bn

from selfdistill.core import ArtifactError, ConfigError, Method, trained_state
from selfdistill.engine import optimizer_names
from selfdistill.engine.evaluate import evaluate
from selfdistill.engine.fine_tuning import FineTuning, parameter_groups
from selfdistill.engine.optimizer import build_optimizer
from selfdistill.engine.optimizer_names import check_optimizer_name, timm_optimizers
from selfdistill.engine.optimizer_state import optimizer_tensors, restore_optimizer
from selfdistill.engine.settings import TrainingSettings
from selfdistill.recipe.build_method import build_method

UNUSABLE = ("adahessian", "kron", "fused", "bnb")  # see the errors that name them


class Plain(Method):
    """A network alone."""

    def __init__(self, student):
        super().__init__()
        self.student = student

    def forward(self, batch, progress):
        raise NotImplementedError


def by_decay(groups):
    return {parameter: group["weight_decay"] for group in groups for parameter in group["params"]}


@pytest.mark.parametrize("name", ["resnet18", "vit_tiny_patch16_224"])
def test_decay_equals_timms_groups(name):
    method = Plain(timm.create_model(name, num_classes=3))
    settings = TrainingSettings(norm_decay=False, weight_decay=0.03)
    optimizer = build_optimizer(method, settings)
    want = timm_groups(
        method.student, 0.03, no_weight_decay_list=getattr(method.student, "no_weight_decay", set)()
    )
    assert by_decay(optimizer.param_groups) == by_decay(want)


def test_a_group_keeps_its_own_decay():
    method = Pair()
    groups = parameter_groups(method, TrainingSettings(norm_decay=False), FineTuning())
    decay = {p: g.get("weight_decay") for g in groups for p in g["params"]}
    assert decay[method.student.bias] == decay[method.scale] == 0.0
    assert decay[method.student.weight] is None
    assert decay[method.slow.bias] == decay[method.slow.weight] == 0.0


def test_scales_of_rates_are_multiplied():
    method = Pair()
    scales = {method.student.weight: 0.5, method.slow.weight: 3.0}
    optimizer = build_optimizer(method, TrainingSettings(), FineTuning(scales))
    scale = {p: g["lr_scale"] for g in optimizer.param_groups for p in g["params"]}
    want = {
        method.student.weight: 0.5, method.student.bias: 1.0, method.scale: 1.0,
        method.slow.weight: pytest.approx(0.3), method.slow.bias: 0.1,
    }  # fmt: skip
    assert scale == want


def test_nothing_to_train_is_refused():
    with pytest.raises(ConfigError, match="nothing is left to train"):
        build_optimizer(Plain(nn.Linear(2, 2).requires_grad_(False)), TrainingSettings())


def test_names_are_those_that_timm_lists():
    missing = set(list_optimizers()) - set(timm_optimizers())
    assert all(name.startswith("bnb") for name in missing)  # of a package for CUDA alone


@pytest.mark.parametrize(
    ("name", "hint"), [("adamW", "adamw"), ("lamp", "lamb"), ("muonn", "muon"), ("", "there are")]
)
def test_an_unknown_optimizer_is_refused_with_a_near_name(name, hint):
    with pytest.raises(ConfigError, match=f"there is no optimizer '{name}'.*{hint}"):
        check_optimizer_name(name)


def test_the_built_in_ones_need_no_look_at_timm(monkeypatch):
    monkeypatch.setattr(optimizer_names, "timm_optimizers", lambda: 1 / 0)
    for name in optimizer_names.BUILT_IN:
        check_optimizer_name(name)


def usable():
    return [name for name in list_optimizers() if not any(part in name for part in UNUSABLE)]


@pytest.mark.parametrize("name", usable())
def test_timms_optimizers_go_on_from_their_tensors(name):
    torch.manual_seed(0)
    settings = TrainingSettings(optimizer=name, lr=0.01)
    straight, resumed = Pair(), Pair()
    first = build_optimizer(straight, settings)
    advance(straight, first, range(4))
    resumed.load_state_dict(straight.state_dict())
    tensors = {k: v.clone() for k, v in optimizer_tensors(first, straight).items()}
    assert all(torch.isfinite(tensor).all() for tensor in tensors.values())
    second = build_optimizer(resumed, settings)
    restore_optimizer(second, resumed, tensors)
    advance(straight, first, range(4, 11))
    advance(resumed, second, range(4, 11))
    for first, second in zip(straight.parameters(), resumed.parameters(), strict=True):
        assert torch.equal(first, second)


@pytest.mark.parametrize("name", ["adahessian", "kron", "fusedadam", "bnbadam"])
def test_optimizers_that_the_loop_cannot_use_are_refused(name):
    with pytest.raises(ConfigError, match=f"optimizer '{name}' .*choose another"):
        build_optimizer(Pair(), TrainingSettings(optimizer=name))


@pytest.mark.parametrize(
    "key", ["other.weight/exp_avg", "group 7/step", "group x/step", "number other/step"]
)
def test_a_state_of_another_method_is_refused(key):
    optimizer = build_optimizer(Pair(), TrainingSettings())
    with pytest.raises(ArtifactError, match="does not fit this method"):
        restore_optimizer(optimizer, Pair(), {key: torch.zeros(3, 3)[0, 0]})


@pytest.mark.parametrize("shape", [(3, 4), (5,), (13,), (4, 3, 1)])
def test_a_slot_of_another_shape_is_refused(shape):
    method = Pair()
    optimizer = build_optimizer(method, TrainingSettings())
    name = "student.weight" if math.prod(shape) > 5 else "student.bias"
    with pytest.raises(ArtifactError, match="does not fit this method"):
        restore_optimizer(optimizer, method, {f"{name}/exp_avg": torch.zeros(shape)})


def norms(module):
    return [m for m in module.modules() if isinstance(m, nn.BatchNorm2d)]


def test_fixed_batchnorm_keeps_its_statistics_and_trains_its_scale(tmp_path):
    net = network()
    fixed = norms(net)[:1]
    for norm in fixed:
        norm.running_mean.fill_(0.1)
    trainer = make(tmp_path, method=build_method("ce", net, task()))
    trainer.tuning = FineTuning({}, fixed)
    before = [norm.weight.clone() for norm in fixed]
    trainer.run()
    first, second = norms(net)
    assert torch.equal(first.running_mean, torch.full_like(first.running_mean, 0.1))
    assert first.num_batches_tracked == 0
    assert second.num_batches_tracked == 6
    assert not torch.equal(first.weight, before[0])


@pytest.mark.parametrize("ema", [0.0, 0.5])
def test_reestimated_statistics_equal_torchs(tmp_path, ema):
    trainer = make(tmp_path, batchnorm="reestimate", ema_decay=ema)
    trainer.run()
    reached = {k: v.clone() for k, v in trainer.method.state_dict().items()}
    for state in [reached] + ([trainer.ema.state] if ema else []):
        measured = network()
        trainer.method.load_state_dict(state)
        net = trainer.method.predictors()["student"]
        measured.load_state_dict(net.state_dict())
        batches = [batch.inputs for group in Slice().epoch(1) for batch in group]
        update_bn(batches, measured)
        for ours, torchs in zip(norms(net), norms(measured), strict=True):
            torch.testing.assert_close(ours.running_mean, torchs.running_mean)
            torch.testing.assert_close(ours.running_var, torchs.running_var)
            assert ours.momentum == 0.1
            assert ours.num_batches_tracked == 3


def test_heads_that_no_predictor_runs_keep_their_statistics(tmp_path):
    trainer = make(tmp_path, "muse", batchnorm="reestimate")
    trainer.run()
    run = {m for net in trainer.method.predictors().values() for m in norms(net)}
    others = [m for m in norms(trainer.method) if m not in run]
    assert all(m.num_batches_tracked == 3 for m in run)  # of one epoch
    assert all(m.num_batches_tracked == 6 for m in others)  # of both


def test_both_scores_are_logged_where_there_is_an_average(tmp_path):
    trainer = make(tmp_path, ema_decay=0.9)
    trainer.run()
    epochs = [entry for entry in trainer.directory.metrics() if entry["kind"] == "epoch"]
    assert all({"val", "val_without_ema"} <= entry.keys() for entry in epochs)
    live = evaluate(trainer.fabric, trainer.method, trainer.task, trainer.val_batches)
    assert epochs[-1]["val_without_ema"] == live
    with trainer.ema_weights():
        averaged = evaluate(trainer.fabric, trainer.method, trainer.task, trainer.val_batches)
    assert epochs[-1]["val"] == averaged


def test_trained_state_of_reestimated_run_is_what_is_saved(tmp_path):
    trainer = make(tmp_path, batchnorm="reestimate", ema_decay=0.5)
    trainer.run()
    again = make(tmp_path, batchnorm="reestimate", ema_decay=0.5)
    again.resume()
    state, saved = trained_state(trainer.method), trained_state(again.method)
    assert all(torch.equal(state[name], saved[name]) for name in state)
    assert all(torch.equal(again.ema.state[n], v) for n, v in trainer.ema.state.items())
