"""SRRL: the teacher's own classifier on its own features, both terms against numpy, all layouts."""

import copy
from collections import OrderedDict

import numpy as np
import pytest
import torch
from offline_pairs import STAGES, features, offline, reached, teacher_net
from torch import nn

from selfdistill.core import METHODS, ConfigError, Provenance, options, trained_state
from selfdistill.methods.srrl import TeacherClassifier, build_connector
from selfdistill.models import build
from selfdistill.taps import Taps

NETWORKS = ["resnet8", "wrn_16_1", "vgg8", "mobilenet_v2", "shufflenet_v1", "shufflenet_v2"]
IMAGES = torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))


def double(x: torch.Tensor) -> np.ndarray:
    return x.detach().double().numpy()


@torch.no_grad()
def cut(network: nn.Module, names="auto", images: torch.Tensor = IMAGES):
    """The network's classifier, its last feature as a map, and its scores."""
    taps = Taps(network.eval(), names, example=images)
    scores, maps = taps.forward_features(images)
    return TeacherClassifier(taps, images), maps[taps.names[-1]], scores


@pytest.mark.parametrize("name", NETWORKS)
@torch.no_grad()
def test_scores_of_the_teachers_own_feature_are_its_scores(name):
    network = build(f"cifar/{name}", num_classes=7, in_channels=3)
    classifier, last, scores = cut(network)
    torch.testing.assert_close(classifier(last), scores)
    pooled = double(last).mean((2, 3))  # a linear layer reads the mean of the feature at the tap
    want = pooled @ double(network.fc.weight).T + double(network.fc.bias)
    np.testing.assert_allclose(double(scores), want, atol=1e-4)


@torch.no_grad()
def test_a_wide_resnet_is_read_behind_its_last_norm():
    network = build("cifar/wrn_16_1", num_classes=7, in_channels=3)
    classifier, last, scores = cut(network)
    sums, before, _ = cut(network, ["block3"])
    assert last.min() >= 0 > before.min()
    torch.testing.assert_close(sums(before), scores)
    assert (network.fc(before.mean((2, 3))) - scores).abs().max() > 0.1
    assert {n for n, _ in classifier.named_parameters()} < {n for n, _ in sums.named_parameters()}


@pytest.mark.parametrize("weights", [(1.0, 10.0), (3.0, 0.5)])
def test_terms_equal_numpy(weights, tiny_net, tiny_task, batch, progress):
    method = offline("srrl", tiny_net, tiny_task, classifier_weight=weights[0],
                     feature_weight=weights[1])  # fmt: skip
    losses = method(batch, progress).losses
    student_features, teacher_features = features(method, batch.inputs)
    convolution, norm, _ = method.connector
    x = np.einsum("dc,bchw->bdhw", double(convolution.weight)[:, :, 0, 0], student_features[-1])
    x = np.maximum(x / np.sqrt(1 + norm.eps), 0).mean((2, 3))  # in evaluation mode, untrained
    t = teacher_features[-1].mean((2, 3))
    layer = method.teacher.network.network.fc
    difference = (x - t) @ double(layer.weight).T
    assert losses["classifier"].item() == pytest.approx(
        weights[0] * np.mean(difference**2), rel=1e-4
    )
    assert losses["feature"].item() == pytest.approx(weights[1] * np.mean((x - t) ** 2), rel=1e-4)
    assert losses["task"].item() == tiny_task.loss(tiny_net(batch.inputs), batch.targets).item()


def test_a_copy_without_a_connector_has_both_terms_zero(tiny_net, tiny_task, batch, progress):
    method = offline("srrl", tiny_net, tiny_task, copy.deepcopy(tiny_net))
    method.connector = nn.Identity()
    losses = method(batch, progress).losses
    assert losses["classifier"].item() == losses["feature"].item() == 0


def test_gradient_passes_the_classifier_and_leaves_it_as_it_is(
    tiny_net, tiny_task, batch, progress
):
    method = offline("srrl", tiny_net, tiny_task).train()
    before = {name: value.clone() for name, value in method.teacher.state_dict().items()}
    assert not method.classifier.network.training
    losses = method(batch, progress).losses
    assert reached(losses["classifier"], tiny_net) == set(STAGES)
    assert reached(losses["classifier"], method.connector) == {"0", "1"}
    assert reached(losses["feature"], tiny_net) == set(STAGES)
    assert reached(losses["task"], tiny_net) == {*STAGES, "fc"}
    sum(losses.values()).backward()
    assert all(p.grad is None for p in method.teacher.parameters())
    torch.optim.SGD(method.param_groups(), lr=1.0, weight_decay=0.1).step()
    after = method.teacher.state_dict()
    assert all(torch.equal(value, after[name]) for name, value in before.items())


def test_checkpoints_have_the_connector_and_not_the_classifier(tiny_net, tiny_task):
    method = offline("srrl", tiny_net, tiny_task)
    assert {name.split(".")[0] for name in trained_state(method)} == {"student", "connector"}
    shared = {id(p) for p in method.teacher.parameters()}
    assert {id(p) for p in method.classifier.parameters()} < shared


@pytest.mark.parametrize("side", [1, 2, 8, 16, 32])
def test_a_map_of_another_size_keeps_its_mean(side):
    network = build("cifar/resnet8", num_classes=7, in_channels=3)  # its last map is 8×8
    classifier, last, _ = cut(network)
    x = torch.randn(3, last.shape[1], side, side, generator=torch.Generator().manual_seed(1))
    want = double(x).mean((2, 3)) @ double(network.fc.weight).T + double(network.fc.bias)
    np.testing.assert_allclose(double(classifier(x)), want, atol=1e-5)


def test_a_classifier_that_reads_places_gets_a_map_of_its_size():
    network = nn.Sequential(nn.Conv2d(3, 4, 8, 8), nn.ReLU(), nn.Flatten(), nn.Linear(64, 5))
    classifier, last, scores = cut(network, ["1"])
    torch.testing.assert_close(classifier(last), scores)
    larger = last.repeat_interleave(3, 2).repeat_interleave(3, 3)  # 12×12
    torch.testing.assert_close(classifier(larger), scores)
    smaller = last[:, :, ::2, ::2]
    repeated = smaller.repeat_interleave(2, 2).repeat_interleave(2, 3)
    torch.testing.assert_close(classifier(smaller), classifier(repeated))


class Tokens(nn.Module):
    """Patches as tokens (B, 16, 6), maybe behind a class token, or as a map (B, 4, 4, 6)."""

    def __init__(self, form: str) -> None:
        super().__init__()
        torch.manual_seed(3)
        self.form, self.patches = form, nn.Conv2d(3, 6, 8, 8)
        if form == "class token":
            self.cls_token = nn.Parameter(torch.randn(1, 1, 6))
        self.tap, self.fc = nn.Identity(), nn.Linear(6, 5)

    def forward(self, x):
        x = self.patches(x).permute(0, 2, 3, 1)
        if self.form == "channels last":
            return self.fc(self.tap(x).mean((1, 2)))
        x = x.flatten(1, 2)
        if self.form == "tokens":
            return self.fc(self.tap(x).mean(1))
        x = self.tap(torch.cat([self.cls_token.expand(x.shape[0], -1, -1), x], 1))
        return self.fc(x[:, 0])


@pytest.mark.parametrize("form", ["channels last", "tokens", "class token"])
@torch.no_grad()
def test_layouts(form):
    network = Tokens(form)
    classifier, last, scores = cut(network, ["tap"])
    assert last.shape == (2, 6, 4, 4)
    want = network.fc(last.mean((2, 3)))  # for a class token, too: it is given the mean
    torch.testing.assert_close(classifier(last), want)
    if form != "class token":
        torch.testing.assert_close(want, scores)


@torch.no_grad()
def test_a_vector():
    network = teacher_net()
    classifier, last, scores = cut(network, ["flat"])
    torch.testing.assert_close(classifier(last), scores)
    x = torch.randn(2, last.shape[1], 4, 6)
    torch.testing.assert_close(classifier(x), network.fc(x.mean((2, 3))))


def test_a_class_token_of_the_student_takes_the_place_of_its_patches(tiny_task, batch, progress):
    student = Tokens("class token")
    student.patches = nn.Conv2d(3, 6, 4, 4)  # of 16×16
    losses = offline("srrl", student, tiny_task, taps=["tap"])(batch, progress).losses
    for name in ("classifier", "feature"):
        assert reached(losses[name], student) == {"cls_token"}


def test_a_layer_that_works_in_place_behind_the_tap(tiny_net, tiny_task, batch, progress):
    teacher = teacher_net()
    stage = teacher.stage4
    teacher.stage4 = stage[:2]
    parts = OrderedDict(teacher.named_children())
    parts["act"] = nn.ReLU(inplace=True)
    for name in ("pool", "flat", "fc"):
        parts.move_to_end(name)
    method = offline("srrl", tiny_net, tiny_task, nn.Sequential(parts)).train()
    losses = method(batch, progress).losses
    sum(losses.values()).backward()
    assert method.connector[0].weight.grad.abs().sum() > 0


class Around(nn.Module):
    """Its classifier reads two features."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Conv2d(3, 4, 3), nn.Conv2d(4, 4, 3)
        self.fc = nn.Linear(8, 5)

    def forward(self, x):
        x = self.first(x)
        return self.fc(torch.cat([x.mean((2, 3)), self.second(x).mean((2, 3))], 1))


def test_a_teacher_that_cannot_be_cut_serves_by_its_features(tiny_net, tiny_task, batch, progress):
    given = {"teacher": Around(), "teacher_taps": ["first", "second"]}
    with pytest.raises(ConfigError, match=r"a connection leads around tap 'second'.*tap the block"):
        offline("srrl", tiny_net, tiny_task, **given)
    method = offline("srrl", tiny_net, tiny_task, classifier_weight=0.0, **given)
    assert method(batch, progress).losses.keys() == {"task", "feature"}


def test_connector_is_drawn_with_the_variance_of_he_by_its_outputs():
    torch.manual_seed(0)
    convolution, norm, activation = build_connector(300, 128, relu=True)
    assert convolution.weight.shape == (128, 300, 1, 1)
    assert convolution.bias is None
    assert convolution.weight.std().item() == pytest.approx((2 / 128) ** 0.5, rel=0.02)
    assert (norm.weight == 1).all()
    assert isinstance(activation, nn.ReLU)
    assert len(build_connector(3, 4, relu=False)) == 2


def test_negative_features_of_the_teacher_are_reported(tiny_net, tiny_task, batch, progress):
    teacher = teacher_net()
    teacher.stage4 = teacher.stage4[:2]  # as a network's that ends without ReLU
    method = offline("srrl", tiny_net, tiny_task, teacher)
    monitors = method(batch, progress).monitors
    target = features(method, batch.inputs)[1][-1].mean((2, 3))
    share = (np.minimum(target, 0) ** 2).sum() / (target**2).sum()
    assert 0.1 < share < 0.9
    assert monitors["unreachable"].item() == pytest.approx(share, rel=1e-4)
    (warning,) = method.diagnose({k: v.item() for k, v in monitors.items()}).values()
    assert "at stage4, and the connector ends in a ReLU; set connector_relu=false" in warning
    linear = offline("srrl", tiny_net, tiny_task, teacher, connector_relu=False)
    assert linear(batch, progress).monitors == {}
    behind_relu = offline("srrl", tiny_net, tiny_task)
    assert behind_relu.diagnose(behind_relu(batch, progress).monitors) == {}


@pytest.mark.parametrize(
    ("chosen", "terms", "reads_scores"),
    [
        ({"feature_weight": 0.0}, {"task", "classifier"}, True),
        ({"classifier_weight": 0.0}, {"task", "feature"}, False),
        ({"classifier_weight": 0.0, "soft_weight": 1.0}, {"task", "feature", "soft"}, True),
        ({"classifier_weight": 0.0, "feature_weight": 0.0}, {"task"}, False),
        ({"soft_weight": 1.0}, {"task", "classifier", "feature", "soft"}, True),
    ],
)
def test_a_term_without_weight_is_left_out(
    chosen, terms, reads_scores, tiny_net, tiny_task, batch, progress
):
    method = offline("srrl", tiny_net, tiny_task, **chosen)
    assert method(batch, progress).losses.keys() == terms
    assert method.needs.teacher_scores == reads_scores
    assert (method.classifier is None) == ("classifier" not in terms)
    assert (method.connector is None) == (not terms & {"classifier", "feature"})


@pytest.fixture
def both(batch):
    generator = torch.Generator().manual_seed(5)
    extra = 1 + 2 * torch.randn(batch.inputs.shape, generator=generator)
    return batch._replace(extra=extra)


def distances(method, images):
    """Squared errors of scores and pooled features of each image, in float64; training mode."""
    with torch.no_grad():
        student, teacher = (copy.deepcopy(net) for net in (method.student, method.teacher))
        last = student.forward_features(images)[1][method.student_tap]
        scores, maps = teacher.forward_features(images)
        x = double(copy.deepcopy(method.connector)(last)).mean((2, 3))
    layer = method.teacher.network.network.fc
    predicted = x @ double(layer.weight).T + double(layer.bias)
    pooled = double(maps[method.teacher_tap]).mean((2, 3))
    return ((predicted - double(scores)) ** 2).mean(1), ((x - pooled) ** 2).mean(1)


@pytest.mark.parametrize("form", ["joint", "separate"])
def test_open_set_terms_by_hand(form, tiny_net, tiny_task, both, progress):
    method = offline("srrl", tiny_net, tiny_task, open_set=form, feature_weight=3.0).train()
    halves = [both.inputs, both.extra]
    passes = [torch.cat(halves)] if form == "joint" else halves
    terms = [np.concatenate(t) for t in zip(*[distances(method, p) for p in passes], strict=True)]
    step = copy.deepcopy(method)(both, progress)
    assert step.losses["classifier"].item() == pytest.approx(terms[0].mean(), rel=1e-4)
    assert step.losses["feature"].item() == pytest.approx(3 * terms[1].mean(), rel=1e-4)
    assert step.outputs.shape == (len(both.targets), 5)
    first = copy.deepcopy(tiny_net).train()(passes[0])[: len(both.inputs)]
    torch.testing.assert_close(step.losses["task"], tiny_task.loss(first, both.targets))


def statistics(form, net, task, batch, progress):
    """Of the student's first batch norm after a step: mean, variance and number of batches."""
    method = offline("srrl", copy.deepcopy(net), task, open_set=form).train()
    method(batch, progress)
    norm = method.student.network.stage1[1]
    return double(norm.running_mean), double(norm.running_var), int(norm.num_batches_tracked)


def test_batch_norm_sees_a_mixture_or_two_batches(tiny_net, tiny_task, both, progress):
    maps = [double(tiny_net.stage1[0](x)).swapaxes(0, 1).reshape(8, -1)
            for x in (both.inputs, both.extra)]  # fmt: skip
    mixture = np.concatenate(maps, 1)
    mean, variance, count = statistics("joint", tiny_net, tiny_task, both, progress)
    np.testing.assert_allclose(mean, 0.1 * mixture.mean(1), rtol=1e-3, atol=1e-6)
    np.testing.assert_allclose(variance, 0.9 + 0.1 * mixture.var(1, ddof=1), rtol=1e-4)
    assert count == 1
    mean, variance, count = statistics("separate", tiny_net, tiny_task, both, progress)
    np.testing.assert_allclose(
        mean, 0.09 * maps[0].mean(1) + 0.1 * maps[1].mean(1), rtol=1e-3, atol=1e-6
    )
    variances = [m.var(1, ddof=1) for m in maps]
    np.testing.assert_allclose(variance, 0.81 + 0.09 * variances[0] + 0.1 * variances[1], rtol=1e-4)
    assert count == 2


@pytest.mark.parametrize("form", ["joint", "separate"])
def test_images_twice_are_the_closed_set(form, tiny_net, tiny_task, batch, progress):
    """The training images as the extra ones too, where batch norm has fixed statistics."""
    twice = batch._replace(extra=batch.inputs)
    step, closed = (
        offline("srrl", tiny_net, tiny_task, open_set=o, soft_weight=0.5)(twice, progress)
        for o in (form, "none")
    )
    assert step.losses.keys() == closed.losses.keys()
    for name, loss in closed.losses.items():
        torch.testing.assert_close(step.losses[name], loss)
    torch.testing.assert_close(step.outputs, closed.outputs)


@pytest.mark.parametrize("form", ["joint", "separate"])
def test_extra_images_bring_no_labels_and_no_soft_loss(form, tiny_net, tiny_task, both, progress):
    method = offline("srrl", tiny_net, tiny_task, open_set=form, soft_weight=1.0)
    first = method(both, progress).losses
    second = method(both._replace(extra=both.extra.flip(2)), progress).losses
    same_terms = {name for name in first if torch.equal(first[name], second[name])}
    assert same_terms == {"task", "soft"}
    images = both.extra.clone().requires_grad_()
    losses = method(both._replace(extra=images), progress).losses
    (gradient,) = torch.autograd.grad(losses["classifier"], images)
    assert (gradient.flatten(1).abs().amax(1) > 0).all()


def test_open_set_needs_its_images(tiny_net, tiny_task, batch, progress):
    assert not offline("srrl", tiny_net, tiny_task).needs.extra
    method = offline("srrl", tiny_net, tiny_task, open_set="joint")
    assert method.needs.extra
    with pytest.raises(ConfigError, match=r"open_set=joint .* fill Batch\.extra"):
        method(batch, progress)
    unweighted = {"classifier_weight": 0.0, "feature_weight": 0.0, "open_set": "separate"}
    assert not offline("srrl", tiny_net, tiny_task, **unweighted).needs.extra


def test_defaults_are_the_codes():
    defaults = {o.name: o.default for o in options(METHODS["srrl"]).values()}
    assert defaults == {
        "classifier_weight": 1.0,
        "feature_weight": 1.0,
        "connector_relu": True,
        "open_set": "none",
        "soft_weight": 0.0,
        "temperature": 4.0,
    }
    assert METHODS["srrl"].provenance is Provenance.CODE
