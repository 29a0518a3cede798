"""Our training step beside that of the methods' public code, interleaved in one process.

    git clone https://github.com/luanyunteng/pytorch-be-your-own-teacher byot
    git clone https://github.com/MingiJi/FRSKD frskd
    git clone https://github.com/winycg/Self-KD-Lib mixskd
    uv run python benchmarks/speed/public.py --byot byot --frskd frskd/classification \
        --mixskd mixskd

Networks and loss modules are those of the repositories (read at 8f052ad, bed2601 and 3c6422e); the
steps are put together here as their training scripts do, for scripts cannot be imported. All are
ResNet-18 for 32×32 images with 100 classes, in fp32 as the scripts are; ours in bf16 and
channels_last besides. A ratio is the median over the rounds; "plain" is our step of cross-entropy
in fp32.
"""

import argparse
import importlib
import statistics
import sys
import types
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from unittest.mock import patch

import torch
import torch.nn.functional as F
from torch import Tensor, nn

sys.path.insert(0, str(Path(__file__).parents[1]))
from record import record
from steps import seconds, stepper

CLASSES, BATCH = 100, 16
Loss = Callable[[], Tensor]


def package(root: Path) -> str:
    """The name under which what lies in a folder can be imported, whatever its `__init__` says."""
    name = "public_" + root.as_posix().replace("/", "_").replace(".", "_").replace("-", "_")
    for folder in ("", ".models", ".methods", ".distill_loss"):
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


def optimized(parts: nn.Module, loss: Loss) -> Callable[[], None]:
    """A function that runs one optimizer step."""
    optimizer = torch.optim.SGD(parts.parameters(), lr=1e-3, momentum=0.9)
    parts.train()

    def run() -> None:
        optimizer.zero_grad()
        loss().backward()
        optimizer.step()

    return run


@contextmanager
def on_the_cpu() -> Iterator[None]:
    """The repositories say `.cuda()`; let it do nothing."""
    with (
        patch.object(nn.Module, "cuda", lambda self: self),
        patch.object(Tensor, "cuda", lambda self: self),
    ):
        yield


PUBLIC = {"byot": byot, "frskd": frskd, "mixskd": mixskd}


def measured(args: argparse.Namespace) -> dict[tuple[str, str], list[float]]:
    """Seconds of every step in every round, by whose it is and what it trains."""
    ours = argparse.Namespace(
        model="cifar/resnet18", task="classification", classes=CLASSES, batch=BATCH, size=32,
        device="cpu", compile=False,
    )  # fmt: skip
    with on_the_cpu():
        runs = {("ours", name): stepper(name, {}, ours, False) for name in ("ce", *PUBLIC)}
        for name, make in PUBLIC.items():
            runs["bf16", name] = stepper(name, {}, ours, True)
            runs["public", name] = optimized(*make(getattr(args, name)))
        times: dict[tuple[str, str], list[float]] = {key: [] for key in runs}
        for round_ in range(-args.warmup, args.rounds):
            for key, run in runs.items():
                spent = seconds(run, "cpu")
                if round_ >= 0:
                    times[key].append(spent)
    return times


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    for name in PUBLIC:
        parser.add_argument(f"--{name}", type=Path, required=True, help="its repository")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--warmup", type=int, default=2)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--name", default="speed-public-resnet18", help="results/NAME.csv")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    times = measured(args)

    def ratio(name: str, over: str, under: str, of: str = "") -> float:
        pairs = zip(times[over, name], times[under, of or name], strict=True)
        return round(statistics.median(a / b for a, b in pairs), 3)

    rows = [
        {
            "method": name,
            "batch": BATCH,
            "ours_to_plain": ratio(name, "ours", "ours", of="ce"),
            "public_to_plain": ratio(name, "public", "ours", of="ce"),
            "ours_to_public": ratio(name, "ours", "public"),
            "ours_bf16_to_public": ratio(name, "bf16", "public"),
            "rounds": args.rounds,
        }
        for name in PUBLIC
    ]
    for row in rows:
        print(*row.values(), sep="\t")
    print(record(args.name, rows))


if __name__ == "__main__":
    main()
