"""FRSKD against numpy, scipy and its authors' sizes, and who learns from which term."""

import copy

import numpy as np
import pytest
import torch
import torch._dynamo
import torch.nn.functional as F
from scene_pairs import scene_net
from scipy import special

from selfdistill.core import METHODS, ConfigError, Progress, options
from selfdistill.costs.macs import network_cost
from selfdistill.methods.frskd import Outputs, mean_over_turns
from selfdistill.models import build
from selfdistill.modules.rotations import joint_labels
from selfdistill.taps import Taps
from selfdistill.tasks import Classification, Segmentation

AUGMENTS = ("mixup", "cutmix", "sla")


def frskd(tiny_net, tiny_task, **keywords):
    torch.manual_seed(0)
    student = Taps(tiny_net, example=tiny_task.example)
    return METHODS["frskd"](student, tiny_task, **keywords)


def parts(method):
    """Everything that only the self-teacher has."""
    return [*method.pyramid.parameters(), *method.head.parameters()]


def at(step: int, total: int = 60) -> Progress:
    return Progress(*(torch.tensor(n) for n in (0, 0, step, total)))


def gradient(loss, *tensors):
    grads = torch.autograd.grad(loss, tensors, retain_graph=True, allow_unused=True)
    return [g is not None and g.abs().sum().item() > 0 for g in grads]


def energy(x):
    flat = (x.detach().double().numpy() ** 2).mean(1).reshape(len(x), -1)
    return flat / np.linalg.norm(flat, axis=1, keepdims=True)


def test_terms_equal_numpy(tiny_net, tiny_task, batch, progress):
    method = frskd(
        tiny_net, tiny_task, soft_weight=3.0, attention_weight=50.0, temperature=2.0
    ).eval()
    caught = {}
    method.pyramid.register_forward_hook(lambda m, args, out: caught.update(F=args[0], T=out))
    losses = method(batch, progress).losses
    outputs = method.predict(batch.inputs)
    cross_entropy = F.cross_entropy
    torch.testing.assert_close(losses["task"], cross_entropy(outputs["student"], batch.targets))
    torch.testing.assert_close(losses["teacher"], cross_entropy(outputs["teacher"], batch.targets))
    p, q = (special.softmax(outputs[n].detach().double() / 2, 1) for n in ("teacher", "student"))
    want = 3 * 4 * special.rel_entr(p, q).sum(1).mean()
    assert losses["soft"].item() == pytest.approx(want, rel=1e-4)
    for i, (x, refined) in enumerate(zip(caught["F"], caught["T"], strict=True), 1):
        want = 50 * np.mean((energy(x) - energy(refined)) ** 2)
        assert losses[f"attention/{i}"].item() == pytest.approx(want, rel=1e-4)


def taught(method, student, teacher, maps, refined):
    outputs = Outputs(torch.tensor(student), torch.tensor(teacher), maps, refined)
    return method._distillation(outputs, at(0))


def test_soft_term_of_two_known_outputs(tiny_net, tiny_task):
    method = frskd(tiny_net, tiny_task, soft_weight=1.0)
    losses = taught(method, [[2.0, 0, 0]], [[0.0, 1, 0]], [], [])
    assert losses["soft"].item() == pytest.approx(0.812841, abs=1e-6)  # τ = 4


def test_attention_of_known_maps(tiny_net, tiny_task):
    method = frskd(tiny_net, tiny_task, soft_weight=0.0, attention_weight=1.0)
    torch.manual_seed(0)
    x = torch.rand(3, 6, 4, 4)
    one, other = torch.zeros(2, 1, 2, 8, 4, 4)[:, 0]
    one[..., 0, 0] = other[..., 3, 2] = 2.5
    alike = [5 * x[:, torch.randperm(6)], x.repeat(1, 2, 1, 1)]
    losses = taught(method, [], [], [x, x, one], [*alike, other])
    assert losses["attention/1"].item() == pytest.approx(0, abs=1e-14)
    assert losses["attention/2"].item() == pytest.approx(0, abs=1e-14)
    assert losses["attention/3"].item() == pytest.approx(2 / 16)  # the largest there is


def test_distillation_moves_the_student_only(tiny_net, tiny_task, batch, progress):
    method = frskd(tiny_net, tiny_task)
    losses = method(batch, progress).losses
    first, teachers = tiny_net.stage1[0].weight, parts(method)
    for name in ("soft", *(f"attention/{i}" for i in (1, 2, 3, 4))):
        assert not any(gradient(losses[name], *teachers)), name
        assert gradient(losses[name], first, tiny_net.fc.weight) == [True, name == "soft"], name


def test_the_teachers_labels_train_the_trunk_and_not_the_classifier(
    tiny_net, tiny_task, batch, progress
):
    method = frskd(tiny_net, tiny_task)
    losses = method(batch, progress).losses
    assert all(gradient(losses["teacher"], *parts(method)))
    stages = [tiny_net.get_submodule(f"stage{i}")[0].weight for i in (1, 2, 3, 4)]
    assert gradient(losses["teacher"], *stages, tiny_net.fc.weight) == [True] * 4 + [False]
    assert not any(gradient(losses["task"], *parts(method)))


def test_without_features_the_rest_stays_bit_for_bit(tiny_net, tiny_task, batch, progress):
    whole, part = (
        frskd(copy.deepcopy(tiny_net), tiny_task, attention_weight=beta)(batch, progress).losses
        for beta in (100.0, 0.0)
    )
    assert part.keys() == {"task", "teacher", "soft"}
    assert all(torch.equal(part[name], whole[name]) for name in part)


def test_without_distillation_it_is_cross_entropy(tiny_net, tiny_task, batch, progress):
    method = frskd(tiny_net, tiny_task, soft_weight=0.0, attention_weight=0.0)
    step = method(batch, progress)
    assert step.losses.keys() == {"task", "teacher"}
    assert torch.equal(step.losses["task"], F.cross_entropy(step.outputs, batch.targets))


@pytest.mark.slow
def test_resnet18_costs_what_the_authors_does():
    with torch.device("meta"):
        network = build("cifar/resnet18", num_classes=100)
        task = Classification([str(i) for i in range(100)], torch.zeros(2, 3, 32, 32))
        taps = Taps(network, ["layer1", "layer2", "layer3", "layer4"], example=task.example)
        extra = {}
        for resize in ("bilinear", "nearest"):
            method = METHODS["frskd"](taps, task, upsampling=resize)
            assert sum(p.numel() for p in parts(method)) == 6_375_794
            teacher, student = (network_cost(p, task.example) for p in method.predictors().values())
            extra[resize] = teacher.macs - student.macs
    assert student.parameters == 11_220_132
    assert extra["bilinear"] == pytest.approx(392.2e6, rel=1e-3)  # in the authors' order
    saved = sum(0.75 * side**2 * c * 2 * c for side, c in ((32, 128), (16, 256), (8, 512)))
    assert extra["bilinear"] - extra["nearest"] == saved


def test_wide_resnet_has_the_ratios_of_table_6():
    network = build("cifar/wrn_16_2", num_classes=100)
    task = Classification([str(i) for i in range(100)], torch.zeros(2, 3, 32, 32))
    taps = Taps(network, "block1,block2,norm", example=task.example)
    method = METHODS["frskd"](
        taps, task, upsampling="bilinear"
    )  # which counts in the authors' order
    assert [tuple(s) for s in method.student.shapes.values()] == [
        (32, 32, 32),
        (64, 16, 16),
        (128, 8, 8),
    ]
    student = network_cost(network, task.example)
    teacher = network_cost(method.predictors()["teacher"], task.example)
    share = sum(p.numel() for p in parts(method)) / student.parameters
    assert share == pytest.approx(0.59, abs=0.005)
    assert teacher.macs / student.macs - 1 == pytest.approx(0.67, abs=0.005)


def learnt_from(method, batch, progress):
    """What the network saw in one step, and the step."""
    seen = []
    handle = method.student.network.register_forward_pre_hook(lambda m, args: seen.append(args[0]))
    step = method(batch, progress)
    handle.remove()
    return seen, step


def test_mixup_mixes_images_and_labels_alike(tiny_net, tiny_task, batch, progress):
    method = frskd(tiny_net, tiny_task, augmentation="mixup").eval()
    onehot, x = F.one_hot(batch.targets, 5).double(), batch.inputs.flatten(1).double()
    halfway = 0
    for number in range(12):
        when = progress._replace(step=torch.tensor(number))
        (images,), step = learnt_from(method, batch, when)
        labels, shares = [], []
        for image, point, label in zip(x, images.flatten(1).double(), onehot, strict=True):
            along = x - image  # the partner is where the way from the image leads to
            way = along @ (point - image) / along.square().sum(1).clamp_min(1e-9)
            miss = (image + way[:, None] * along - point).norm(dim=1)
            j = int(miss.argmin())
            assert miss[j] < 1e-4
            labels.append((1 - way[j]) * label + way[j] * onehot[j])
            shares += [float(way[j])] if way[j] > 1e-3 else []
        assert not shares or np.ptp(shares) < 1e-4  # one ratio for the batch
        halfway += bool(shares) and 0.1 < shares[0] < 0.9
        outputs = method.predict(images)
        for name, term in (("student", "task"), ("teacher", "teacher")):
            want = F.cross_entropy(outputs[name].double(), torch.stack(labels))
            assert step.losses[term].item() == pytest.approx(want.item(), rel=1e-4, abs=1e-5)
    assert halfway >= 2


def test_cutmix_pastes_one_box_and_mixes_labels_by_its_area(tiny_net, tiny_task, batch):
    method = frskd(tiny_net, tiny_task, augmentation="cutmix").eval()
    onehot, shares = F.one_hot(batch.targets, 5).double(), []
    for number in range(6):
        progress = Progress(*map(torch.tensor, (0, 0, number, 1000)))
        (images,), step = learnt_from(method, batch, progress)
        changed = (images != batch.inputs).any(1)  # (B, H, W)
        box = changed.any(0)
        shares.append(1 - box.double().mean())
        labels = []
        for i in range(len(images)):
            same = [torch.equal(images[i][:, box], other[:, box]) for other in batch.inputs]
            j = same.index(True) if box.any() else i
            labels.append(shares[-1] * onehot[i] + (1 - shares[-1]) * onehot[j])
        want = F.cross_entropy(method.predict(images)["teacher"].double(), torch.stack(labels))
        assert step.losses["teacher"].item() == pytest.approx(want.item(), rel=1e-4)
    assert len({float(s) for s in shares}) > 3


def test_the_mean_over_turns_is_of_the_scores_for_each_turn():
    torch.manual_seed(0)
    scores = torch.randn(4 * 6, 4 * 5)
    want = np.mean([scores[6 * r : 6 * r + 6, r::4].double().numpy() for r in range(4)], axis=0)
    np.testing.assert_allclose(mean_over_turns(scores).numpy(), want, atol=1e-6)
    sure = F.one_hot(joint_labels(torch.tensor([2, 4, 0])), 20).float()
    assert torch.equal(mean_over_turns(sure), F.one_hot(torch.tensor([2, 4, 0]), 5).float())


def test_turned_terms_equal_torch(tiny_net, tiny_task, batch, progress):
    method = frskd(tiny_net, tiny_task, augmentation="sla").eval()
    (upright, turned), step = learnt_from(method, batch, progress)
    assert torch.equal(upright, batch.inputs)
    quarters = turned.unflatten(0, (4, -1))
    assert torch.equal(quarters[2], batch.inputs.flip(2, 3))  # by 180°
    labels = torch.cat([4 * batch.targets + r for r in range(4)])
    plain, both = method._outputs(upright), method._outputs(turned)
    outputs = {"student": [plain.student], "teacher": [plain.teacher]}
    for who, last in (("student", both.maps[-1]), ("teacher", both.refined[-1])):
        linear = method.joint[who][-1]
        scores = F.linear(last.mean((2, 3)), linear.weight, linear.bias)
        torch.testing.assert_close(step.losses[f"joint/{who}"], F.cross_entropy(scores, labels))
        outputs[who].append(sum(scores.chunk(4)[r][:, r::4] for r in range(4)) / 4)
        want = kl(*outputs[who])
        torch.testing.assert_close(step.losses[f"turned/{who}"], want, rtol=1e-4, atol=1e-6)
    want = 2 * kl(torch.cat(outputs["student"]), torch.cat(outputs["teacher"]))
    torch.testing.assert_close(step.losses["soft"], want, rtol=1e-4, atol=1e-6)
    pairs = zip(plain.maps, both.maps, plain.refined, both.refined, strict=True)
    for i, (a, b, t, u) in enumerate(pairs, 1):
        gap = energy(torch.cat([a, b])) - energy(torch.cat([t, u]))
        want = 100 * np.mean(gap**2)
        assert step.losses[f"attention/{i}"].item() == pytest.approx(want, rel=1e-4)


def kl(student, teacher):
    target, log_probabilities = (teacher / 4).softmax(1), (student / 4).log_softmax(1)
    return 16 * F.kl_div(log_probabilities, target, reduction="batchmean")


def test_who_learns_from_the_turned_images(tiny_net, tiny_task, batch, progress):
    method = frskd(tiny_net, tiny_task, augmentation="sla")
    losses = method(batch, progress).losses
    student_weight, teacher_weight = (
        method.joint[who][-1].weight for who in ("student", "teacher")
    )
    learners = (tiny_net.fc.weight, student_weight, method.head[-1].weight, teacher_weight)
    want = {
        "task": [True, False, False, False],
        "teacher": [False, False, True, False],
        "joint/student": [False, True, False, False],
        "joint/teacher": [False, False, False, True],
        "turned/student": [True, False, False, False],
        "turned/teacher": [False, False, True, False],
        "soft": [True, True, False, False],
        "attention/4": [False, False, False, False],
    }
    for name, who in want.items():
        assert gradient(losses[name], *learners) == who, name
        reached = gradient(losses[name], method.pyramid.bottom_up["4"].weights)[0]
        assert reached == ("teacher" in name), name
        assert gradient(losses[name], tiny_net.stage1[0].weight) == [True], name


@pytest.mark.parametrize("augment", AUGMENTS)
def test_everything_is_trained_whatever_the_augmentation(
    augment, tiny_net, tiny_task, batch, progress
):
    method = frskd(tiny_net, tiny_task, augmentation=augment)
    method(batch, progress).total.backward()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in method.parameters())
    assert list(method.predictors()) == ["teacher", "student"]
    assert method(batch._replace(inputs=batch.inputs[:2], targets=batch.targets[:2],
                                 indices=batch.indices[:2]), progress).total.isfinite()  # fmt: skip


@pytest.mark.parametrize("augment", AUGMENTS)
def test_draws_are_keyed(augment, tiny_net, tiny_task, batch, progress):
    method = frskd(tiny_net, tiny_task, augmentation=augment).eval()
    torch.manual_seed(1)
    first = method(batch, progress).losses["task"]
    torch.manual_seed(2)
    assert torch.equal(first, method(batch, progress).losses["task"])
    later = method(batch, progress._replace(step=progress.step + 1)).losses["task"]
    assert torch.equal(first, later) == (augment == "sla")


@pytest.mark.parametrize("augment", AUGMENTS)
def test_augmentations_need_no_value(augment, tiny_net, tiny_task, batch, progress):
    method = frskd(tiny_net, tiny_task, augmentation=augment).to("meta")
    there = batch._replace(**{n: getattr(batch, n).to("meta") for n in batch._fields[:3]})
    losses = method(there, Progress(*(t.to("meta") for t in progress))).losses
    assert all(loss.is_meta for loss in losses.values())


@pytest.mark.slow
@pytest.mark.parametrize("augment", AUGMENTS)
def test_augmentations_compile_once(augment, tiny_net, tiny_task, batch, progress):
    torch._dynamo.reset()
    method = frskd(tiny_net, tiny_task, augmentation=augment)
    plain = copy.deepcopy(method)
    method.compile(backend="eager")
    with torch._dynamo.config.patch(error_on_recompile=True):
        for step in (0, 1, 900):
            when = progress._replace(step=torch.tensor(step), seed=torch.tensor(step))
            got, want = method(batch, when).losses, plain(batch, when).losses
            assert got.keys() == want.keys()
            torch.testing.assert_close(got, want, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("augment", AUGMENTS)
def test_augmentations_under_bf16(augment, tiny_net, tiny_task, batch, progress):
    method = frskd(tiny_net, tiny_task, augmentation=augment)
    full = method(batch, progress).losses
    with torch.autocast("cpu", torch.bfloat16):
        half = method(batch, progress).losses
    for name, loss in full.items():
        assert half[name].dtype == torch.float32
        torch.testing.assert_close(half[name], loss, rtol=0.05, atol=0.02)


def test_augmentations_that_a_task_does_not_allow(tiny_net):
    task = Segmentation("abcde", torch.zeros(2, 3, 16, 16))
    for augment in AUGMENTS:
        message = f"augmentation='{augment}' wants one class label an image; segmentation has none"
        with pytest.raises(ConfigError, match=message):
            frskd(scene_net(), task, augmentation=augment)
    assert not frskd(scene_net(), task).needs.image_labels
    example = torch.zeros(2, 3, 16, 16)
    assert frskd(
        tiny_net, Classification("abcde", example), augmentation="mixup"
    ).needs.image_labels
    oblong = Classification("abcde", torch.zeros(2, 3, 16, 24))
    frskd(tiny_net, oblong, augmentation="cutmix")
    with pytest.raises(ConfigError, match="these are 16×24"):
        frskd(tiny_net, oblong, augmentation="sla")


def test_one_tap_is_too_few(tiny_net, tiny_task):
    student = Taps(tiny_net, ["stage4"], example=tiny_task.example)
    with pytest.raises(ConfigError, match="two taps or more"):
        METHODS["frskd"](student, tiny_task)


def test_defaults():
    defaults = {o.name: o.default for o in options(METHODS["frskd"]).values()}
    assert defaults == {
        "soft_weight": 2.0,
        "attention_weight": 100.0,
        "temperature": 4.0,
        "pyramid_width": 2.0,
        "pyramid_depth": 2,
        "upsampling": "nearest",
        "augmentation": "none",
        "start_fraction": 0.0,
        "warmup_fraction": 0.0,
    }
    assert all(o.meaning for o in options(METHODS["frskd"]).values())
