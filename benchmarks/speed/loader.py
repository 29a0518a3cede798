"""The resident loader against torchvision's usual pipeline, one picture at a time.

uv run python benchmarks/speed/loader.py
"""

import argparse
import statistics
import sys
import time
from pathlib import Path

import torch
from PIL import Image
from torch.utils.data import DataLoader, Dataset
from torchvision import transforms

sys.path.insert(0, str(Path(__file__).parents[1]))
from record import record

from selfdistill.data import InMemoryImages, Loader

MEAN, STD = (0.5071, 0.4867, 0.4408), (0.2675, 0.2565, 0.2761)


class PerSample(Dataset[torch.Tensor]):
    """CIFAR as torchvision serves it: PIL, random crop, flip, tensor, normalize."""

    def __init__(self, pixels: torch.Tensor) -> None:
        self.pictures = [Image.fromarray(p.permute(1, 2, 0).numpy()) for p in pixels]
        steps = [
            transforms.RandomCrop(32, padding=4),
            transforms.RandomHorizontalFlip(),
            transforms.ToTensor(),
            transforms.Normalize(MEAN, STD),
        ]
        self.transform = transforms.Compose(steps)

    def __len__(self) -> int:
        return len(self.pictures)

    def __getitem__(self, place: int) -> torch.Tensor:
        image: torch.Tensor = self.transform(self.pictures[place])
        return image


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--images", type=int, default=12800)
    parser.add_argument("--batch", type=int, default=128)
    parser.add_argument("--rounds", type=int, default=5)
    args = parser.parse_args()
    torch.set_num_threads(1)
    pixels = torch.randint(0, 256, (args.images, 3, 32, 32), dtype=torch.uint8)
    resident = Loader(
        InMemoryImages(pixels, torch.zeros(args.images, dtype=torch.int64)),
        batch_size=args.batch,
        seed=0,
        mean=MEAN,
        std=STD,
        crop_padding=4,
        flip=True,
    )
    usual = DataLoader(PerSample(pixels), args.batch, shuffle=True, drop_last=True)

    def clock(batches: object) -> float:
        start = time.perf_counter()
        for _ in batches:  # type: ignore[attr-defined]
            pass
        return time.perf_counter() - start

    pairs = [(clock(resident.epoch(r)), clock(usual)) for r in range(args.rounds)]
    seen = resident.steps_per_epoch * args.batch
    row = {
        "batch": args.batch,
        "ours_images_per_second": round(seen / statistics.median(p[0] for p in pairs)),
        "torchvision_images_per_second": round(seen / statistics.median(p[1] for p in pairs)),
        "ratio_median": round(statistics.median(p[1] / p[0] for p in pairs), 1),
        "rounds": args.rounds,
    }
    print(row)
    print(record("speed-loader", [row]))


if __name__ == "__main__":
    main()
