"""What the networks of `cifar100_small.py` have beside their accuracy on images like their own.

    uv run python benchmarks/accuracy/qualities.py --runs runs/forms --rows exits "jsd 0.1"

The runs must be there and their data where they were; validation images alone are read, and the
pool. Figures in percent, but for the error of calibration in points:

- `probe/K` and `coarse/K`: accuracy of a linear classifier that is trained on the pooled feature of
  tap K of the finished network, over the run's training images, for CIFAR-100's classes and its 20
  superclasses. "deep" is that of the last tap.
- `calibration`: expected calibration error of the network, 15 equal bins (Guo et al. 2017).
- `unseen`: area under the ROC curve by which its largest probability tells images of its classes
  from those of a pool of other classes (Hendrycks & Gimpel 2017).
- `noise`, `blur`, `contrast`: accuracy on images that are corrupted as in CIFAR-100-C at severity 3
  (Hendrycks & Dietterich 2019): noise of deviation 0.08, a Gaussian blur of 0.7 pixels, contrast
  0.4. That set is 32×32; smaller images lose more by the same blur.

Two results: mean and standard deviation, and differences paired by seed with 95 % t intervals.
"""

import argparse
import statistics
import sys
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from scipy.ndimage import gaussian_filter
from scipy.stats import mannwhitneyu
from torch import Tensor, nn

sys.path.insert(0, str(Path(__file__).parents[1]))
from record import report
from seeds import interval

from selfdistill.data import ImageSet, read_extra_images
from selfdistill.information import NetworkUnderTest
from selfdistill.runs.networks import networks_under_test
from selfdistill.taps import Taps

# the superclass of each of CIFAR-100's classes in alphabetical order
SUPERCLASSES = torch.tensor(
    [
        *(4, 1, 14, 8, 0, 6, 7, 7, 18, 3, 3, 14, 9, 18, 7, 11, 3, 9, 7, 11),
        *(6, 11, 5, 10, 7, 6, 13, 15, 3, 15, 0, 11, 1, 10, 12, 14, 16, 9, 11, 5),
        *(5, 19, 8, 8, 15, 13, 14, 17, 18, 10, 16, 4, 17, 4, 2, 0, 17, 4, 18, 17),
        *(10, 3, 2, 12, 12, 16, 12, 1, 9, 19, 2, 10, 0, 1, 16, 12, 9, 13, 15, 13),
        *(16, 19, 2, 4, 6, 19, 5, 5, 8, 19, 18, 1, 2, 15, 6, 0, 17, 8, 14, 13),
    ]
)
DECAY = 1e-3  # of the linear classifiers; not tuned
Features = list[Tensor]


class Subject:
    """A network and its normalization."""

    def __init__(self, chosen: NetworkUnderTest, example: Tensor) -> None:
        self.taps = Taps(chosen.network.eval(), chosen.taps, example=example)
        assert chosen.mean
        assert chosen.std
        self.mean, self.std = (
            torch.tensor(numbers)[:, None, None] for numbers in (chosen.mean, chosen.std)
        )

    @torch.no_grad()
    def read(self, pixels: Tensor) -> tuple[Tensor, Features]:
        """Scores (N, K), and the pooled feature (N, C) at every tap, of pixels in [0, 1]."""
        scores, features = [], []
        for part in ((pixels - self.mean) / self.std).split(256):
            output, by_tap = self.taps.forward_features(part)
            scores.append(output)
            features.append([x.mean((2, 3)) for x in by_tap.values()])
        return torch.cat(scores), [torch.cat(parts) for parts in zip(*features, strict=True)]


def probe(train: Tensor, labels: Tensor, held_out: Tensor, targets: Tensor) -> float:
    """Accuracy of a linear classifier of standardized features, trained to the end."""
    mean, std = train.mean(0), train.std(0) + 1e-6
    train, held_out = ((x - mean) / std for x in (train, held_out))
    layer = nn.Linear(train.shape[1], int(labels.max()) + 1)
    nn.init.zeros_(layer.weight)
    nn.init.zeros_(layer.bias)
    optimizer = torch.optim.LBFGS(layer.parameters(), max_iter=200, line_search_fn="strong_wolfe")

    def closure() -> Tensor:
        optimizer.zero_grad()
        loss = F.cross_entropy(layer(train), labels) + DECAY * layer.weight.square().sum()
        loss.backward()
        return loss

    optimizer.step(closure)
    with torch.no_grad():
        return right(layer(held_out), targets)


def right(scores: Tensor, labels: Tensor) -> float:
    """Accuracy in percent."""
    return 100 * (scores.argmax(1) == labels).float().mean().item()


def calibration_error(scores: Tensor, labels: Tensor, bins: int = 15) -> float:
    """Expected calibration error in points."""
    confidence, guesses = scores.softmax(1).max(1)
    hits = (guesses == labels).float()
    index = (confidence * bins).long().clamp(max=bins - 1)
    gaps = torch.zeros(bins).index_add(0, index, confidence - hits)
    return 100 * (gaps.abs().sum() / len(labels)).item()


def told_apart(seen: Tensor, unseen: Tensor) -> float:
    """Area under the ROC curve of the largest probability, in percent."""
    known, unknown = (x.softmax(1).max(1).values.numpy() for x in (seen, unseen))
    statistic = mannwhitneyu(known, unknown).statistic
    return 100 * float(statistic) / (len(known) * len(unknown))


def corruptions(pixels: Tensor) -> dict[str, Tensor]:
    """{corruption: the same pixels (N, C, H, W), corrupted}."""
    noise = 0.08 * torch.randn(pixels.shape, generator=torch.Generator().manual_seed(0))
    blurred = gaussian_filter(pixels.numpy(), sigma=(0, 0, 0.7, 0.7))
    mean = pixels.mean((2, 3), keepdim=True)
    return {
        "noise": (pixels + noise).clamp(0, 1),
        "blur": torch.from_numpy(np.asarray(blurred)),
        "contrast": (pixels - mean) * 0.4 + mean,
    }


def pixels_of(images: ImageSet) -> Tensor:
    """All of them, in [0, 1]."""
    return images.fetch(torch.arange(len(images))).float() / 255


def qualities(
    subject: Subject, train: ImageSet, held_out: ImageSet, pool: Tensor
) -> dict[str, float]:
    """{quality: its figure} of one network."""
    pixels = pixels_of(held_out)
    _, learned = subject.read(pixels_of(train))
    scores, features = subject.read(pixels)
    found = {"accuracy": right(scores, held_out.labels)}
    for name, classes in (("probe", torch.arange(100)), ("coarse", SUPERCLASSES)):
        labels, targets = classes[train.labels], classes[held_out.labels]
        for tap, (x, y) in enumerate(zip(learned, features, strict=True), 1):
            place = "deep" if tap == len(features) else str(tap)
            found[f"{name}/{place}"] = probe(x, labels, y, targets)
    found["calibration"] = calibration_error(scores, held_out.labels)
    found["unseen"] = told_apart(scores, subject.read(pool)[0])
    for name, corrupted in corruptions(pixels).items():
        found[name] = right(subject.read(corrupted)[0], held_out.labels)
    return found


def measured(args: argparse.Namespace) -> dict[tuple[str, int], dict[str, float]]:
    """{(row, seed): its qualities}."""
    names = {(row, seed): args.runs / row / f"s{seed}" for seed in args.seeds for row in args.rows}
    networks, data = networks_under_test([str(name) for name in names.values()])
    assert data.val is not None
    pool = read_extra_images(args.pool).in_shape(data.train.shape).take(torch.arange(2000))
    unseen, found = pixels_of(pool), {}
    for (row, seed), network in zip(names, networks.values(), strict=True):
        subject = Subject(network, torch.zeros(2, *data.train.shape))
        found[row, seed] = qualities(subject, data.train, data.val, unseen)
        print(row, seed, found[row, seed], flush=True)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=Path, default=Path("runs/forms"))
    parser.add_argument("--rows", nargs="+", default=["ce", "exits", "jsd 0.1", "mul 0.1"])
    parser.add_argument("--bases", nargs="+", default=["ce", "exits"])
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument("--pool", default="folder:web64", help="images of no class of the run")
    parser.add_argument("--name", default="qualities-forms", help="results/NAME.csv")
    args = parser.parse_args()
    torch.set_num_threads(1)
    found = measured(args)
    table: list[dict[str, Any]] = []
    paired: list[dict[str, Any]] = []
    for quality in next(iter(found.values())):
        by_row = {row: [found[row, seed][quality] for seed in args.seeds] for row in args.rows}
        for row, values in by_row.items():
            mean, std = round(statistics.mean(values), 2), round(statistics.stdev(values), 2)
            table.append(
                {"quality": quality, "row": row, "n": len(values), "mean": mean, "std": std}
            )
        for base in args.bases:
            for row in (row for row in args.rows if row not in (base, "ce")):
                diffs = [a - b for a, b in zip(by_row[row], by_row[base], strict=True)]
                about = {"quality": quality, "difference": f"{row} - {base}"}
                paired.append({**about, **interval(diffs, 2)})
    report(args.name, table, paired)


if __name__ == "__main__":
    main()
