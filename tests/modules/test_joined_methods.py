"""Methods joined on one student: their terms side by side, one pass, one state."""

import copy

import pytest
import torch
from torch import nn

from selfdistill.core import METHODS, Batch, ConfigError, Needs, Progress, trained_state
from selfdistill.models import build
from selfdistill.recipe.build_method import build_method
from selfdistill.recipe.options import check_options, known_options, objective
from selfdistill.tasks import make_task

STAGES = ["stage1", "stage2", "stage3", "stage4"]


@pytest.fixture
def batch(batch) -> Batch:
    generator = torch.Generator().manual_seed(2)
    return batch._replace(same_class_inputs=torch.randn(8, 3, 16, 16, generator=generator))


def joined(net, task, name="muse+cskd", options=None, **companions):
    torch.manual_seed(0)
    return build_method(name, net, task, STAGES, options, **companions).train()


def test_terms_are_those_of_each_and_the_first_ones_task(tiny_net, tiny_task, batch, progress):
    twin = copy.deepcopy(tiny_net)
    both = joined(tiny_net, tiny_task)
    muse = build_method("muse", twin, tiny_task, STAGES).train()
    muse.load_state_dict(both.parts["muse"].state_dict())
    cskd = build_method("cskd", copy.deepcopy(twin), tiny_task).train()
    muse_step, cskd_step = muse(batch, progress), cskd(batch, progress)
    step = both(batch, progress)
    want = {f"muse/{k}": v for k, v in muse_step.losses.items()}
    want |= {f"cskd/{k}": v for k, v in cskd_step.losses.items() if k != "task"}
    assert step.losses.keys() == want.keys()
    torch.testing.assert_close(step.losses, want)
    assert {k for k in step.monitors if k.startswith("muse/")} == {
        f"muse/{k}" for k in muse_step.monitors
    }
    assert torch.equal(step.outputs, muse_step.outputs)


def test_one_pass_over_an_input_serves_all(tiny_net, tiny_task, batch, progress):
    sizes = []
    tiny_net.stage1.register_forward_hook(lambda m, args, out: sizes.append(len(args[0])))
    joined(tiny_net, tiny_task)(batch, progress)
    assert len(sizes) == 1 + 1 + 1  # probe of the taps, anchors, same_class_inputs
    statistics = tiny_net.stage1[1].num_batches_tracked
    assert int(statistics) == 2


def test_one_pass_of_the_teacher_serves_all(progress):
    task = make_task("classification", "abcde", (3, 32, 32))
    student, teacher = (
        build(f"cifar/{name}", num_classes=5, in_channels=3) for name in ("resnet8", "wrn_16_1")
    )
    both = build_method("kd+crd+at", student, task, teacher=teacher, chosen={"crd": {
        "num_negatives": 2}}, train_labels=torch.arange(8) % 5).train()  # fmt: skip
    passes = {"student": 0, "teacher": 0}

    def count(name):
        return lambda *_: passes.update({name: passes[name] + 1})

    student.register_forward_hook(count("student"))
    teacher.register_forward_hook(count("teacher"))
    images = torch.randn(8, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    step = both(Batch(images, torch.arange(8) % 5, torch.arange(8)), progress)
    assert passes == {"student": 1, "teacher": 1}
    # each part with the taps that it has alone
    assert both.parts["at"].teacher.names == ("block1", "block2", "block3")
    assert both.parts["crd"].teacher.names == ("stem", "block1", "block2", "norm")
    assert [n for n in step.losses if n.startswith("at/")] == [
        "at/attention/1", "at/attention/2", "at/attention/3"
    ]  # fmt: skip
    alone = build_method("at", student, task, teacher=teacher).train()(
        Batch(images, torch.arange(8) % 5, torch.arange(8)), progress
    )
    for i in (1, 2, 3):
        torch.testing.assert_close(step.losses[f"at/attention/{i}"], alone.losses[f"attention/{i}"])
    assert not any(name.startswith(("teacher", "parts.kd")) for name in trained_state(both))


def test_the_objective_says_whose_supervised_term_it_is():
    chosen = check_options("kd+at", {"kd.soft_weight": 0.5})
    assert objective("kd+at", chosen) == (
        "kd (supervised_weight 0.1, soft_weight 0.5) + at (attention_weight 1000, soft_weight 0); "
        "the supervised term is kd's, that of at is left out"
    )
    other = objective("at+cskd", check_options("at+cskd", {}))
    assert other.endswith("the supervised term is at's, that of cskd is left out")


def test_predictors_and_predict(tiny_net, tiny_task, batch):
    both = joined(tiny_net, tiny_task).eval()
    assert list(both.predictors()) == ["exit1", "exit2", "exit3", "student"]
    assert both.predictors()["student"] is tiny_net
    outputs = both.predict(batch.inputs)
    assert list(outputs) == list(both.predictors())
    for name, network in both.predictors().items():
        assert torch.equal(network(batch.inputs), outputs[name])


def test_parameters_are_optimized_once_and_all_trained(tiny_net, tiny_task, batch, progress):
    both = joined(tiny_net, tiny_task)
    given = [id(p) for group in both.param_groups() for p in group["params"]]
    assert len(given) == len(set(given))
    assert set(given) == {id(p) for p in both.parameters() if p.requires_grad}
    both(batch, progress).total.backward()
    assert all(p.grad is not None for p in both.parameters())


def test_state_holds_the_student_once_and_comes_back(tiny_net, tiny_task, batch, progress):
    both = joined(tiny_net, tiny_task)
    state = trained_state(both)
    student = [k for k in state if k.endswith("fc.weight")]
    assert student == ["student.network.fc.weight"]
    other = joined(copy.deepcopy(tiny_net), tiny_task)
    with torch.no_grad():
        for p in other.parameters():
            p.add_(1)
    other.load_state_dict(state, strict=False)
    assert torch.equal(other(batch, progress).total, both(batch, progress).total)


@pytest.mark.slow
def test_compiles_once(tiny_net, tiny_task, batch, progress):
    torch._dynamo.reset()
    both = joined(tiny_net, tiny_task)
    plain = copy.deepcopy(both)
    both.compile(backend="eager")
    with torch._dynamo.config.patch(error_on_recompile=True):
        for step in range(3):
            moment = progress._replace(step=torch.tensor(step))
            torch.testing.assert_close(both(batch, moment).losses, plain(batch, moment).losses)


def test_offline_and_self(tiny_net, tiny_task, batch, progress):
    torch.manual_seed(1)
    teacher = nn.Sequential(copy.deepcopy(tiny_net))
    both = joined(tiny_net, tiny_task, "muse+kd", None, teacher=teacher,
                  teacher_taps=["0.stage1", "0.stage4"])  # fmt: skip
    terms = both(batch, progress).losses
    assert "muse/task" in terms
    assert "kd/soft" in terms
    assert "kd/task" not in terms
    assert not any(p.requires_grad for p in teacher.parameters())


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("muse+byot", "each puts its own 'exit1'"),
        ("muse+ce", "nothing to add"),
        ("muse+muse", "names a method twice"),
        ("muse+cskt", "did you mean 'cskd'"),
        ("dml+afd", "each trains the peers"),
    ],
)
def test_what_cannot_go_together(tiny_net, tiny_task, name, message):
    peers = [copy.deepcopy(tiny_net)] if "dml" in name else []
    with pytest.raises(ConfigError, match=message):
        joined(tiny_net, tiny_task, name, None, peers=peers)


def test_options_go_to_their_owner():
    chosen = check_options("muse+cskd", {"combine": "mul", "cskd.temperature": 3.0})
    assert chosen["muse"]["combine"] == "mul"
    assert (chosen["muse"]["temperature"], chosen["cskd"]["temperature"]) == (3.0, 3.0)
    assert check_options("muse+cskd", chosen) == chosen
    assert {"combine", "muse.combine", "cskd.temperature"} <= known_options("muse+cskd").keys()


@pytest.mark.parametrize(
    ("chosen", "message"),
    [
        ({"temperature": 2.0}, "write muse.temperature or cskd.temperature"),
        ({"combin": "mul"}, "did you mean 'combine'"),
        ({"muse.combin": "mul"}, "did you mean 'combine'"),
        ({"muse": {"combine": "div"}}, "combine = 'div' does not fit"),
        ({"byot.alpha": 1}, "no option 'byot.alpha'"),
    ],
)
def test_wrong_options_are_told(chosen, message):
    with pytest.raises(ConfigError, match=message):
        check_options("muse+cskd", chosen)


def test_needs_are_those_of_all(tiny_net, tiny_task):
    both = joined(tiny_net, tiny_task, "muse+cskd+ddgsd")
    every = Needs(views=2, batch=2, same_class=True, image_labels=True, single_label=True)
    assert both.needs == every
    assert isinstance(both.needs, type(METHODS["muse"].needs))


def test_diagnosis_names_the_method(tiny_net, tiny_task):
    both = joined(tiny_net, tiny_task)
    assert list(both.diagnose({"muse/mutual/1": 1.3863, "cskd/mutual/1": 1.3863})) == [
        "muse/mutual/1"
    ]


def test_progress_is_passed_on(tiny_net, tiny_task, batch):
    calls = []
    both = joined(tiny_net, tiny_task)
    for part in both.parts.values():
        part.after_step = calls.append
        part.after_epoch = calls.append
    progress = Progress(*map(torch.tensor, (0, 0, 1, 10)))
    both.after_step(progress)
    both.after_epoch(())
    assert calls == [progress, progress, (), ()]


def test_a_choice_called_none_is_no_missing_value():
    assert check_options("exits", {"discrepancy": None})["discrepancy"] == "none"
    assert check_options("muse", {"critic_width": None})["critic_width"] is None
