"""The distillation token against numpy, the authors' loss and timm's task; what is deployed."""

import copy

import numpy as np
import pytest
import timm
import torch
from offline_pairs import Says, teacher_net

from selfdistill.core import METHODS, ConfigError, Frozen
from selfdistill.export.extract_predictor import extract_predictor
from selfdistill.recipe.build_method import build_method
from selfdistill.tasks import Classification

SIZES = {"img_size": 16, "patch_size": 4, "depth": 2, "embed_dim": 16, "num_heads": 2}


def transformer(name: str = "deit_tiny_distilled_patch16_224") -> torch.nn.Module:
    torch.manual_seed(0)
    return timm.create_model(name, num_classes=5, **SIZES)


def deit(task: Classification, network=None, teacher=None, **options):
    return METHODS["deit"](
        network or transformer(), Frozen(teacher or teacher_net()), task, **options
    )


def head_logits(network, images) -> list[np.ndarray]:
    """Of class and distillation token: the first two behind the last norm."""
    with torch.no_grad():
        tokens = network.forward_features(images).double().numpy()
    return [
        tokens[:, i] @ head.weight.detach().double().numpy().T + head.bias.detach().numpy()
        for i, head in enumerate((network.head, network.head_dist))
    ]


def log_softmax(z: np.ndarray) -> np.ndarray:
    return z - np.log(np.exp(z).sum(1, keepdims=True))


def trained_heads(network):
    """Heads that tell something: timm starts them at zero."""
    for head in (network.head, network.head_dist):
        torch.nn.init.normal_(head.weight)
        torch.nn.init.normal_(head.bias)
    return network.eval()


@pytest.mark.parametrize("temperature", [1.0, 3.0])
@pytest.mark.parametrize("distillation", ["hard", "soft"])
def test_terms_equal_numpy(distillation, temperature, tiny_task, batch, progress):
    network = trained_heads(transformer())
    options = {"distillation": distillation, "distillation_weight": 0.3, "temperature": temperature}
    method = deit(tiny_task, network, **options).eval()
    step = method(batch, progress)
    z, distilled = head_logits(network, batch.inputs)
    rows = np.arange(len(z))
    with torch.no_grad():
        reference = method.teacher(batch.inputs).double().numpy()
    task = -log_softmax(z)[rows, batch.targets].mean()
    assert step.losses["task"].item() == pytest.approx(0.7 * task, rel=1e-4)
    if distillation == "hard":
        loss = -log_softmax(distilled)[rows, reference.argmax(1)].mean()
    else:
        q, p = (log_softmax(x / temperature) for x in (reference, distilled))
        loss = temperature**2 * (np.exp(q) * (q - p)).sum(1).mean()
    assert step.losses["distillation"].item() == pytest.approx(0.3 * loss, rel=1e-4)
    np.testing.assert_allclose(step.outputs.detach(), (z + distilled) / 2, rtol=1e-4, atol=1e-5)


class Heads(torch.nn.Module):
    """Logits of two heads, whatever is shown; outside of training their mean."""

    def __init__(self, logits, distilled):
        super().__init__()
        self.head, self.head_dist = Says(logits), Says(distilled)

    def forward(self, x):
        return (self.head(x) + self.head_dist(x)) / 2


# of the authors' DistillationLoss; its soft loss is divided by the number of classes
@pytest.mark.parametrize(
    ("options", "value"),
    [
        ({}, 2.5714681148529053),
        ({"distillation": "soft", "distillation_weight": 0.1}, 1.9047091007232666),
    ],
)
def test_loss_is_that_of_the_authors_code(options, value, tiny_task, batch, progress):
    steps = torch.arange(40, dtype=torch.float64)
    z, distilled, reference = (
        scale * (f * steps).sin().view(8, 5).float()
        for scale, f in ((3, 0.37), (3, 0.71), (4, 0.53))
    )
    small = Classification("abcde", torch.zeros(8, 3, 4, 4))
    losses = deit(small, Heads(z, distilled), Says(reference), **options)(batch, progress).losses
    per_class = 5 if options else 1
    total = losses["task"] + losses["distillation"] / per_class
    assert total.item() == pytest.approx(value, rel=1e-5)


def test_loss_is_that_of_timms_task(tiny_task, batch, progress):
    token_task = getattr(pytest.importorskip("timm.task"), "TokenDistillationTask", None)
    if token_task is None:
        pytest.skip("an older timm")
    network, teacher = transformer().train(), teacher_net().eval()
    trained_heads(network).train()
    task = token_task(
        copy.deepcopy(network), teacher, torch.nn.CrossEntropyLoss(),
        distill_type="hard", task_loss_weight=0.5, verbose=False,
    )  # fmt: skip
    task.teacher.normalize_input = lambda x, *_: x  # ours gets the images as they are
    want = task(batch.inputs, batch.targets)["loss"]
    torch.testing.assert_close(deit(tiny_task, network, teacher)(batch, progress).total, want)


def test_each_head_learns_from_its_own_source(tiny_task, batch, progress):
    network = transformer()
    losses = deit(tiny_task, network)(batch, progress).losses
    heads = [network.head.weight, network.head_dist.weight]
    for name, reaches in (("task", [True, False]), ("distillation", [False, True])):
        grads = torch.autograd.grad(losses[name], heads, retain_graph=True, allow_unused=True)
        assert [g is not None for g in grads] == reaches


def test_deployed_network_is_timms_and_gives_the_mean_of_both_heads(tiny_task, batch):
    network = trained_heads(transformer())
    deployed = extract_predictor(deit(tiny_task, network).eval(), "student")
    z, distilled = head_logits(network, batch.inputs)
    got = deployed(batch.inputs).detach()
    np.testing.assert_allclose(got, (z + distilled) / 2, rtol=1e-4, atol=1e-5)
    other = transformer().eval()
    other.load_state_dict(deployed.state_dict())  # names as timm has them
    torch.testing.assert_close(other(batch.inputs), deployed(batch.inputs))


def test_joins_other_methods(tiny_task, batch, progress):
    chosen = {"deit": {"distillation": "soft"}, "kd": {"soft_weight": 0.5}}
    network = trained_heads(transformer()).train()
    method = build_method("deit+kd", network, tiny_task, chosen=chosen, teacher=teacher_net())
    step = method.train()(batch, progress)
    assert step.losses.keys() == {"deit/task", "deit/distillation", "kd/soft"}
    assert step.total.isfinite()


def test_levit_has_both_heads_too(progress, batch):
    network = timm.create_model("levit_128s", num_classes=5, img_size=64)
    task = Classification("abcde", torch.zeros(2, 3, 64, 64))
    images = torch.randn(8, 3, 64, 64)
    step = deit(task, network)(batch._replace(inputs=images), progress)
    assert step.total.isfinite()


@pytest.mark.parametrize("name", ["vit_tiny_patch16_224", "cnn"])
def test_networks_without_the_token_are_refused(name, tiny_net, tiny_task):
    network = tiny_net if name == "cnn" else transformer(name)
    with pytest.raises(ConfigError, match="no distillation token") as refusal:
        deit(tiny_task, network)
    assert "timm/deit_tiny_distilled_patch16_224" in str(refusal.value)


@pytest.mark.parametrize("share", [-0.1, 1.5])
def test_wrong_weight(share, tiny_task):
    with pytest.raises(ConfigError, match=r"give 0 … 1"):
        deit(tiny_task, distillation_weight=share)
