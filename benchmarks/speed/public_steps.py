"""Training steps of public code, put together as its scripts do, for scripts cannot be imported.

Networks and losses are those of the repositories: pytorch-be-your-own-teacher (read at 8045079),
FRSKD (98b87e5), Self-KD-Lib (ede3062), RepDistiller (b84f547), torchdistill (3e4373c) and timm.
ResNet-18 for 32×32 images with 100 classes, where there is a teacher taught by a ResNet-34.
"""

import argparse
import importlib
import logging
import sys
import types
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from selfdistill.models import build

CLASSES, BATCH, IMAGES = 100, 16, 50_000
Loss = Callable[[], Tensor]


def package(root: Path) -> str:
    """The name under which what lies in a folder can be imported, whatever its `__init__` says."""
    name = "public_" + root.as_posix().replace("/", "_").replace(".", "_").replace("-", "_")
    for folder in ("", ".models", ".methods", ".distill_loss", ".crd", ".distiller_zoo", ".helper"):
        made = types.ModuleType(name + folder)
        made.__path__ = [str(root / folder[1:])]
        sys.modules[name + folder] = made
    return name


def imported(root: Path, *parts: str) -> list[types.ModuleType]:
    """Modules of a repository, by their dotted names."""
    name = package(root.resolve())
    return [importlib.import_module(f"{name}.{part}") for part in parts]


def batch() -> tuple[Tensor, Tensor]:
    """Random images and labels."""
    return torch.randn(BATCH, 3, 32, 32), torch.randint(CLASSES, (BATCH,))


def byot(root: Path) -> tuple[nn.ModuleList, Loss]:
    """Three exits that learn from labels, from the last output and from the last feature."""
    (models,) = imported(root, "models.resnet")
    net, (x, y) = models.multi_resnet18_kd(num_classes=CLASSES), batch()

    def loss() -> Tensor:
        out, *rest = net(x)
        outs, last, features = rest[:3], rest[3], rest[4:]
        soft = torch.softmax(out / 3, 1).detach()
        hard = sum((F.cross_entropy(z, y) for z in outs), F.cross_entropy(out, y))
        towards = sum(-(torch.log_softmax(z / 3, 1) * soft).sum(1).mean() * 9 for z in outs)
        fixed = last.detach()
        gaps = sum(((f - fixed) ** 2 * ((f > 0) | (fixed > 0)).float()).sum() for f in features)
        total: Tensor = 0.9 * hard + 0.1 * towards + 1e-6 * gaps
        return total

    return nn.ModuleList([net]), loss


def frskd(root: Path) -> tuple[nn.ModuleList, Loss]:
    """A pyramid on the stages' features, soft labels and attention."""
    models, pyramids, losses = imported(root, "models.resnet", "models.bifpnc", "distill_loss.AT")
    net, (x, y) = models.cifarresnet18(num_classes=CLASSES), batch()
    options: dict[str, Any] = {"repeat": 1, "depth": [2, 2, 2], "width": 2, "num_features": 4}
    made = argparse.Namespace(**options, temperature=4, alpha=2.0, beta=100.0)
    pyramid = pyramids.BiFPNc(net.network_channels, CLASSES, made)
    distilled = losses.Attention(made)

    def loss() -> Tensor:
        features, out = net(x)
        refined, taught = pyramid(features)
        hard = F.cross_entropy(out, y) + F.cross_entropy(taught, y)
        total: Tensor = hard + distilled(out, taught, features, refined)
        return total

    return nn.ModuleList([net, pyramid]), loss


def mixskd(root: Path) -> tuple[nn.ModuleList, Loss]:
    """Images beside their mixtures through the network and its branches, all terms summed."""
    models, adversarial, utils = imported(
        root, "models.resnet_mixskd", "methods.adversarial", "utils"
    )
    net, (x, y) = models.MixSKD_CIFAR_ResNet18(num_classes=CLASSES), batch()
    told, towards = adversarial.discriminatorLoss([512] * 4), utils.DistillKL(3)

    def loss() -> Tensor:
        index, lam = torch.randperm(BATCH), torch.distributions.Beta(0.4, 0.4).sample().item()

        def mixed(a: Tensor) -> Tensor:
            return lam * a[:BATCH] + (1 - lam) * a[index]

        def mixed_loss(z: Tensor) -> Tensor:
            return lam * F.cross_entropy(z, y) + (1 - lam) * F.cross_entropy(z, y[index])

        outs, features, taught, taught_mixed = net(torch.cat([x, mixed(x)]), lam, index)
        means, mixes = [mixed(z) for z in outs], [z[BATCH:] for z in outs]
        total = sum((F.cross_entropy(z[:BATCH], y) for z in outs), torch.zeros(()))
        total = total + sum(mixed_loss(z) for z in (*mixes, taught, taught_mixed))
        targets = [(b, a) for a, b in zip(means[:-1], mixes[:-1], strict=True)]
        targets.append((taught_mixed, taught))
        for a, b, (to_a, to_b) in zip(means, mixes, targets, strict=True):
            total = total + towards(a, to_a.detach()) + towards(b, to_b.detach())
        maps, mixed_maps = [mixed(f) for f in features], [f[BATCH:] for f in features]
        gaps = [F.mse_loss(a, b) for a, b in zip(maps, mixed_maps, strict=True)]
        whole: Tensor = total + sum(gaps) + told(maps, mixed_maps)
        return whole

    return nn.ModuleList([net]), loss


def repdistiller(root: Path, loss_name: str) -> tuple[nn.ModuleList, Loss]:
    """KD, AT or CRD; loss and accuracy are read in every step, for its meters."""
    names = ("models.resnetv2", "distiller_zoo.KD", "distiller_zoo.AT", "crd.criterion")
    models, logits, maps, crd, util = imported(root, *names, "helper.util")
    student, teacher = models.ResNet18(num_classes=CLASSES), models.ResNet34(num_classes=CLASSES)
    teacher.eval()
    (x, y), index = batch(), torch.arange(BATCH)
    made = argparse.Namespace(s_dim=512, t_dim=512, feat_dim=128, n_data=IMAGES, nce_k=16384)
    made.nce_t, made.nce_m = 0.07, 0.5
    soft, attention = logits.DistillKL(4), maps.Attention()
    contrast = crd.CRDLoss(made) if loss_name == "crd" else None
    trained = [student, *([contrast.embed_s, contrast.embed_t] if contrast else [])]
    # weights of labels, soft labels and the method's own term, as its README has them
    gamma, alpha, beta = {"kd": (0.1, 0.9, 0), "at": (1, 0, 1000), "crd": (1, 0, 0.8)}[loss_name]

    def own(ours: list[Tensor], theirs: list[Tensor]) -> Any:
        if contrast:  # its data set draws the negatives
            drawn = torch.randint(IMAGES, (BATCH, made.nce_k + 1))
            drawn[:, 0] = index
            return contrast(ours[-1], theirs[-1], index, drawn)
        return sum(attention(ours[1:-1], theirs[1:-1])) if loss_name == "at" else 0

    def loss() -> Tensor:
        features, out = student(x, is_feat=True, preact=False)
        with torch.no_grad():
            known, told = teacher(x, is_feat=True, preact=False)
        total: Tensor = gamma * F.cross_entropy(out, y) + alpha * soft(out, told)
        total = total + beta * own(features, known)
        for accuracy in util.accuracy(out, y, topk=(1, 5)):
            accuracy[0].item()
        total.sum().item()
        return total.sum()

    return nn.ModuleList(trained), loss


def torchdistill(root: Path) -> tuple[nn.ModuleList, Loss]:
    """KD by its box, which finds outputs by hooks; its step itself is that of all others here."""
    logging.disable(logging.INFO)
    sys.path.insert(0, str(root))
    box_class = importlib.import_module("torchdistill.core.distillation").DistillationBox
    student, teacher = (build(f"cifar/resnet{n}", num_classes=CLASSES) for n in (18, 34))
    where = {"student_module_path": ".", "student_module_io": "output"}
    where |= {"teacher_module_path": ".", "teacher_module_io": "output"}
    keys = {**where, "temperature": 4, "alpha": 0.1, "reduction": "batchmean"}
    terms = {"kd": {"criterion": {"key": "KDLoss", "kwargs": keys}, "weight": 1.0}}
    config = {
        "num_epochs": 1,
        "teacher": {"forward_proc": "forward_batch_only", "requires_grad": False},
        "student": {"forward_proc": "forward_batch_only"},
        "criterion": {"key": "WeightedSumLoss", "kwargs": {"sub_terms": terms}},
    }
    box = box_class(teacher, student, {}, config, torch.device("cpu"), None, False, 1.0)
    teacher.eval()
    x, y = batch()
    return nn.ModuleList([student]), lambda: box.forward_process(x, y)


def timm_task() -> tuple[nn.ModuleList, Loss]:
    """KD by timm's task; it brings the images to the teacher's normalization."""
    task_class = importlib.import_module("timm.task").LogitDistillationTask
    student, teacher = (build(f"cifar/resnet{n}", num_classes=CLASSES) for n in (18, 34))
    about: dict[str, Any] = {"num_classes": CLASSES, "in_chans": 3}
    about["pretrained_cfg"] = {"mean": (0.5,) * 3, "std": (0.25,) * 3}
    for network in (student, teacher):
        vars(network).update(about)
    weights = {"task_loss_weight": 0.1, "temperature": 4.0, "verbose": False}
    task = task_class(student, teacher, nn.CrossEntropyLoss(), **weights)
    x, y = batch()
    return nn.ModuleList([student]), lambda: task(x, y)["loss"]
