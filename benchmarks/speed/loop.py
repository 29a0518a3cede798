"""Our training loop against the shortest one that a person would write, same step and batches.

    uv run python benchmarks/speed/loop.py

Both train the same network by plain cross-entropy on the same resident images; epochs alternate.
"""

import argparse
import itertools
import statistics
import sys
import tempfile
import time
from pathlib import Path

import torch
import torch.nn.functional as F

sys.path.insert(0, str(Path(__file__).parents[1]))
from lightning_fabric import Fabric
from record import record

from selfdistill.data import InMemoryImages, Loader
from selfdistill.engine.run_directory import RunDirectory
from selfdistill.engine.settings import TrainingSettings
from selfdistill.engine.trainer import Trainer
from selfdistill.models import build
from selfdistill.recipe.build_method import build_method
from selfdistill.tasks import Classification


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", default="cifar/resnet10_w16")
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--images", type=int, default=1280)
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--threads", type=int, default=2)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    torch.manual_seed(0)
    pixels = torch.randint(0, 256, (args.images, 3, 32, 32), dtype=torch.uint8)
    data = InMemoryImages(pixels, torch.randint(0, 100, (args.images,)))
    loader = Loader(
        data,
        batch_size=args.batch,
        seed=0,
        mean=(0.5,) * 3,
        std=(0.25,) * 3,
        crop_padding=4,
        flip=True,
    )
    bare_net = build(args.model, num_classes=100)
    optimizer = torch.optim.SGD(bare_net.parameters(), lr=1e-3, momentum=0.9, nesterov=True)

    def bare(epoch: int) -> float:
        start = time.perf_counter()
        for batches in loader.epoch(epoch):
            loss = F.cross_entropy(bare_net(batches[0].inputs), batches[0].targets)
            loss.backward()
            optimizer.step()
            optimizer.zero_grad()
        return time.perf_counter() - start

    task = Classification([str(i) for i in range(100)], torch.zeros(2, 3, 32, 32))
    method = build_method("ce", build(args.model, num_classes=100), task)
    settings = TrainingSettings(epochs=10**6, lr=1e-3, log_every_steps=20)
    fabric = Fabric(accelerator="cpu", devices=1)
    with tempfile.TemporaryDirectory() as folder:
        directory = RunDirectory(Path(folder))
        fit = Trainer(fabric, method, task, loader, None, settings, directory)
        fit.method.train()

        def ours(epoch: int) -> float:
            start = time.perf_counter()
            for batches in loader.epoch(epoch):
                fit.step(epoch, batches)
                fit.record_step(epoch)
            return time.perf_counter() - start

        ratios = []
        for epoch in itertools.chain([0], range(args.rounds)):
            pair = (ours(epoch), bare(epoch))
            ratios.append(pair[0] / pair[1])
    ratio = statistics.median(ratios[1:])
    row = {
        "model": args.model,
        "batch": args.batch,
        "case": "our loop / bare loop",
        "ratio_median": round(ratio, 3),
        "ratio_min": round(min(ratios[1:]), 3),
        "ratio_max": round(max(ratios[1:]), 3),
        "rounds": args.rounds,
    }
    print(row)
    print(record("speed-loop", [row]))


if __name__ == "__main__":
    main()
