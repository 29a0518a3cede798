"""A method in somebody else's loop: the README's three lines, and what they promise."""

import copy
import inspect
import math
import re
from pathlib import Path

import pytest
import torch
from torch import nn

import selfdistill
import selfdistill.methods  # registers them
from selfdistill.core import METHODS, ConfigError
from selfdistill.models import build
from selfdistill.recipe.build_method import unsupported_reason
from selfdistill.tasks import Classification

README = Path(__file__).parents[2] / "README.md"


def small(seed: int = 0) -> nn.Module:
    torch.manual_seed(seed)
    return build("cifar/resnet8", num_classes=10)


def pictures(n: int = 8) -> tuple[torch.Tensor, torch.Tensor]:
    torch.manual_seed(1)
    return torch.randn(n, 3, 16, 16), torch.arange(n) % 10


def test_the_readme_lines_run_and_teach():
    blocks = re.findall(r"```python\n(.*?)```", README.read_text(encoding="utf-8"), re.DOTALL)
    lines = next(block for block in blocks if "wrap" in block)
    images, labels = pictures()
    scope = {"selfdistill": selfdistill, "torch": torch, "my_network": small()}
    scope |= {"images": images, "labels": labels}
    exec(lines, scope)
    first = scope["loss"].item()
    for _ in range(20):
        scope["optimizer"].zero_grad()
        loss = scope["criterion"](images, labels)
        loss.backward()
        scope["optimizer"].step()
    assert loss.item() < 0.7 * first


@pytest.mark.parametrize(
    "name",
    [
        name
        for name in METHODS
        if not unsupported_reason(METHODS[name], Classification)
        and not METHODS[name].needs.distillation_token
    ],
)
def test_the_network_is_the_one_that_was_given(name):
    network, (images, labels) = small(), pictures()
    keys, before = list(network.state_dict()), copy.deepcopy(network.state_dict())
    takes = inspect.signature(METHODS[name]).parameters
    companions = {"teacher": small()} if "teacher" in takes else {}
    if trained_by := METHODS[name].teacher_method:
        teacher = selfdistill.wrap(small(), trained_by, example=images[:2], classes=10)
        companions = {"teacher": teacher.method}
    companions |= {"peers": [small(1)]} if "peers" in takes else {}
    companions |= {"train_labels": labels} if "train_labels" in takes else {}
    companions |= {"total_steps": 10}
    criterion = selfdistill.wrap(network, name, example=images[:2], classes=10, **companions)
    views = [images.flip(3)] * (METHODS[name].needs.views - 1)
    same_class_inputs = images.roll(1, 0) if METHODS[name].needs.same_class else None
    index = torch.arange(len(images))
    criterion(
        images, labels, index=index, views=views, same_class_inputs=same_class_inputs
    ).backward()
    torch.optim.SGD(criterion.parameters(), lr=0.1).step()
    assert list(network.state_dict()) == keys
    network.eval(), criterion.eval()
    if METHODS[name].composite:
        made = criterion.method.predictors()["student"]
        assert torch.equal(made(images), criterion.predict(images)["student"])
        return
    moved = not torch.equal(network.state_dict()["fc.weight"], before["fc.weight"])
    assert moved != criterion.method.needs.trained_student
    assert torch.equal(network(images), criterion.predict(images)["student"])


def test_steps_are_counted_and_saved():
    images, labels = pictures()
    criterion = selfdistill.wrap(small(), "muse", example=images[:2], classes=10, negatives="roll")
    for _ in range(3):
        criterion(images, labels)
    other = selfdistill.wrap(small(), "muse", example=images[:2], classes=10, negatives="roll")
    other.load_state_dict(criterion.state_dict())
    assert int(other.step) == 3
    assert torch.equal(criterion(images, labels), other(images, labels))


def test_evaluation_counts_no_step():
    images, labels = pictures()
    criterion = selfdistill.wrap(small(), "ce", example=images[:2], classes=10).eval()
    criterion(images, labels)
    assert int(criterion.step) == 0


@pytest.mark.parametrize(
    ("name", "options", "sentence"),
    [("muze", {}, "did you mean 'muse'"), ("muse", {"weigth": 1}, "no option 'weigth'")],
)
def test_wrong_words_are_told(name, options, sentence):
    with pytest.raises(ConfigError, match=sentence):
        selfdistill.wrap(small(), name, example=pictures()[0][:2], classes=10, **options)


def test_wrong_number_of_classes_is_told():
    with pytest.raises(ConfigError, match="num_classes=7"):
        selfdistill.wrap(small(), "ce", example=pictures()[0][:2], classes=7)


def remembering(**keywords):
    """A criterion of a method with a memory of eight images; the teacher is always the same."""
    images, labels = pictures()
    keywords = {"teacher": small(2), "train_labels": labels, "num_negatives": 4, **keywords}
    criterion = selfdistill.wrap(small(), "crd", example=images[:2], classes=10, **keywords)
    return criterion, images, labels


def test_a_memory_wants_to_know_which_images():
    criterion, images, labels = remembering()
    with pytest.raises(ConfigError, match="remembers every image"):
        criterion(images, labels)
    criterion(images, labels, index=torch.arange(8)).backward()


@pytest.mark.parametrize(
    ("name", "sentence"), [("ddgsd", "compares 2 augmentations"), ("cskd", "images of one class")]
)
def test_what_a_batch_lacks_is_told(name, sentence):
    images, labels = pictures()
    criterion = selfdistill.wrap(small(), name, example=images[:2], classes=10)
    with pytest.raises(ConfigError, match=sentence):
        criterion(images, labels)


def test_images_without_labels():
    images, labels = pictures()
    options = {"teacher": small(2), "open_set": "separate"}
    criterion = selfdistill.wrap(small(), "srrl", example=images[:2], classes=10, **options)
    with pytest.raises(ConfigError, match=r"call criterion\(images, labels, extra=...\)"):
        criterion(images, labels)
    criterion(images, labels, extra=images[:5].flip(3)).backward()
    assert criterion.method.connector[1].num_batches_tracked == 2


def test_mixtures_are_refused_where_a_class_is_wanted():
    criterion, images, labels = remembering()
    with pytest.raises(ConfigError, match="without mixup and cutmix"):
        criterion(images, nn.functional.one_hot(labels, 10).float(), index=torch.arange(8))
    plain = selfdistill.wrap(small(), "muse", example=images[:2], classes=10)
    assert plain(images, nn.functional.one_hot(labels, 10).float()).isfinite()


def test_what_follows_a_step_is_done_before_the_state_is_saved():
    criterion, images, labels = remembering()
    before = criterion.method.memory_student.rows.clone()
    criterion(images, labels, index=torch.arange(8)).backward()
    assert torch.equal(criterion.method.memory_student.rows, before)  # the optimizer comes first
    assert not torch.equal(criterion.state_dict()["method.memory_student.rows"], before)
    moved = criterion.method.memory_student.rows.clone()
    criterion.apply_after_step()
    assert torch.equal(criterion.method.memory_student.rows, moved)  # once is enough


def trained(criterion, images, labels, steps):
    optimizer = torch.optim.SGD(criterion.param_groups(lr=0.05))
    for _ in range(steps):
        optimizer.zero_grad()
        criterion(images, labels, index=torch.arange(8)).backward()
        optimizer.step()
    return criterion.state_dict()


def test_a_restored_lesson_goes_on_as_the_first_would_have():
    first, images, labels = remembering()
    saved = copy.deepcopy(trained(first, images, labels, 2))
    want = trained(first, images, labels, 2)
    second, _, _ = remembering()
    trained(second, images, labels, 1)  # what it did before is forgotten
    second.load_state_dict(saved)
    got = trained(second, images, labels, 2)
    assert int(got["step"]) == 4
    assert all(torch.equal(got[name], value) for name, value in want.items())


@pytest.mark.parametrize(
    "optimizer_class", [torch.optim.SGD, torch.optim.AdamW, torch.optim.RMSprop]
)
def test_a_scaled_group_keeps_its_ratio_under_a_scheduler(optimizer_class):
    images, labels = pictures()
    option = {"discriminator_lr_scale": 0.1}
    criterion = selfdistill.wrap(
        small(), "afd", example=images[:2], classes=10, peers=[small(1)], **option
    )
    groups = criterion.param_groups(lr=0.5)
    assert not any("lr_scale" in group for group in groups)
    optimizer = optimizer_class(groups)
    scheduler = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, 4)
    for step in range(3):
        rates = [group["lr"] for group in optimizer.param_groups]
        assert rates[0] == pytest.approx(0.25 * (1 + math.cos(math.pi * step / 4)))
        assert rates[1] == pytest.approx(0.1 * rates[0])
        criterion(images, labels).backward()
        optimizer.step()
        scheduler.step()


def test_sgd_moves_a_scaled_group_by_its_own_rate():
    images, labels = pictures()
    criterion = selfdistill.wrap(
        small(), "afd", example=images[:2], classes=10, peers=[small(1)], discriminator_lr_scale=0.1
    )
    optimizer = torch.optim.SGD(criterion.param_groups(lr=0.5))
    criterion(images, labels).backward()
    for group, rate in zip(optimizer.param_groups, (0.5, 0.05), strict=True):
        parameter = next(p for p in group["params"] if p.grad is not None and p.grad.any())
        expected = parameter.detach() - rate * parameter.grad
        group["checked"] = parameter, expected
    optimizer.step()
    for group in optimizer.param_groups:
        torch.testing.assert_close(*group["checked"])


def test_a_method_measures_itself_on_held_out_images():
    images, labels = pictures()
    companions = {"peers": [small(1)], "ensemble": "general"}
    criterion = selfdistill.wrap(small(), "kdcl", example=images[:2], classes=10, **companions)
    criterion.after_epoch([(images[:4], labels[:4]), (images[4:], labels[4:])])
    assert criterion.method.weights.sum().item() == pytest.approx(1)
    assert criterion.method.weights[0] != criterion.method.weights[1]


def test_the_length_of_the_run_is_counted_in_calls():
    images, labels = pictures()
    criterion = selfdistill.wrap(small(), "snapshot", example=images[:2], classes=10, total_steps=4)
    soft_terms = []
    for _ in range(4):
        criterion(images, labels)
        soft_terms.append(criterion.last.losses["soft"].item() > 0)
    assert soft_terms == [False, False, True, True]


@pytest.mark.parametrize(
    ("method", "options"),
    [
        ("pskd", {"train_labels": torch.arange(16) % 10}),
        ("snapshot", {}),
        ("one", {}),
        ("frskd", {"start_fraction": 0.5}),
        ("muse+snapshot", {}),
    ],
)
def test_a_method_that_changes_over_the_run_wants_its_length(method, options):
    images, labels = pictures()
    known = {"example": images[:2], "classes": 10, **options}
    keys = {"index": torch.arange(len(labels))} if "train_labels" in options else {}
    criterion = selfdistill.wrap(small(), method, **known)
    with pytest.raises(ConfigError, match=r"total_steps=N"):
        criterion(images, labels, **keys)
    criterion = selfdistill.wrap(small(), method, total_steps=2, **known)
    for _ in range(5):  # more than was said: as at the end of the run
        criterion(images, labels, **keys)
        assert all(term >= 0 for term in criterion.last.losses.values())


def test_one_of_several_processes_may_read_the_state(monkeypatch):
    """It waits for no other: what is gathered from all is left out, and that is said."""
    images, labels = pictures()
    index = torch.arange(len(labels))
    criterion = selfdistill.wrap(
        small(), "pskd", example=images[:2], classes=10, train_labels=labels, total_steps=4
    )
    criterion(images, labels, index=index)
    before = criterion.method.predictions.clone()
    monkeypatch.setattr("selfdistill.integrations.loss.process_count", lambda: 2)
    with pytest.warns(UserWarning, match=r"apply_after_step\(\) on every process"):
        state = criterion.state_dict()
    assert torch.equal(state["method.predictions"], before)
    criterion.apply_after_step()
    assert not torch.equal(criterion.state_dict()["method.predictions"], before)


def test_the_latest_step_keeps_no_graph():
    images, labels = pictures()
    criterion = selfdistill.wrap(small(), "muse", example=images[:2], classes=10)
    loss = criterion(images, labels)
    assert not criterion.last.outputs.requires_grad
    assert sum(criterion.last.losses.values()).item() == pytest.approx(loss.item())
    assert torch.equal(copy.deepcopy(criterion).last.outputs, criterion.last.outputs)


def test_label_smoothing_is_the_supervised_losss():
    images, labels = pictures()
    criterion = selfdistill.wrap(small(), "ce", example=images[:2], classes=10, label_smoothing=0.1)
    loss = criterion.eval()(images, labels)
    outputs = criterion.predict(images)["student"]
    torch.testing.assert_close(loss, nn.CrossEntropyLoss(label_smoothing=0.1)(outputs, labels))


@pytest.mark.parametrize("name", ["ce", "muse"])
def test_the_student_says_what_keeps_its_weight(name):
    network, (images, _) = small(), pictures()
    network.no_weight_decay = lambda: {"fc.bias"}
    criterion = selfdistill.wrap(network, name, example=images[:2], classes=10)
    (kept,) = criterion.no_weight_decay()
    assert dict(criterion.named_parameters())[kept] is network.fc.bias
    plain = selfdistill.wrap(small(), name, example=images[:2], classes=10)
    assert plain.no_weight_decay() == set()


def test_a_segmenter_learns_too():
    torch.manual_seed(0)
    network = build("fpn/small", num_classes=3, in_channels=3)
    images, masks = torch.randn(4, 3, 32, 32), torch.randint(3, (4, 32, 32))
    criterion = selfdistill.wrap(
        network, "exits", example=images[:2], classes=3, task="segmentation"
    )
    criterion(images, masks).backward()
    assert {"task", "task/1"} <= set(criterion.last.losses)
    assert network.classify.weight.grad.abs().sum() > 0
    with pytest.raises(
        ConfigError, match=r"FPN gives \(2, 3, 16, 16\) for 2 images, but 3 classes"
    ):
        selfdistill.wrap(network, "exits", example=images[:2], classes=3)
    with pytest.raises(ConfigError, match=r"no task 'segment' .did you mean 'segmentation'"):
        selfdistill.wrap(network, "exits", example=images[:2], classes=3, task="segment")


@pytest.mark.parametrize("options", [{}, {"teacher_taps": "_orig_mod.layer1,_orig_mod.layer3"}])
def test_a_compiled_teacher_whose_features_are_read(options):
    networks = [build("cifar/resnet8", num_classes=3) for _ in range(2)]
    keys = {"example": torch.zeros(2, 3, 16, 16), "classes": 3}
    with pytest.raises(ConfigError, match=r"network is compiled.*before torch\.compile"):
        selfdistill.wrap(
            networks[0], "fitnets", teacher=torch.compile(networks[1]), **options, **keys
        )
    selfdistill.wrap(networks[0], "kd", teacher=torch.compile(networks[1]), **keys)


@pytest.mark.parametrize("compiled", ["student", "peer"])
def test_a_compiled_network_is_refused_with_what_to_do(compiled):
    networks = {name: build("cifar/resnet8", num_classes=3) for name in ("student", "peer")}
    networks[compiled] = torch.compile(networks[compiled])
    with pytest.raises(ConfigError, match=r"network is compiled.*before torch\.compile"):
        selfdistill.wrap(
            networks["student"],
            "dml",
            example=torch.zeros(2, 3, 16, 16),
            classes=3,
            peers=[networks["peer"]],
        )


@pytest.mark.parametrize(
    ("example", "sentence"),
    [
        (torch.zeros(2, 3, 16, 16, dtype=torch.uint8), "this is torch.uint8; normalize it"),
        (torch.zeros(3, 16, 16), r"is two images, \(2, C, H, W\), and this is \(3, 16, 16\)"),
    ],
)
def test_an_example_that_is_no_batch(example, sentence):
    network = build("cifar/resnet8", num_classes=3)
    with pytest.raises(ConfigError, match=sentence):
        selfdistill.wrap(network, "ce", example=example, classes=3)
