"""Small runs of every method, as one process or two, that nothing disturbed or that a fault did."""

import json
import time
from pathlib import Path
from typing import Any, NamedTuple

from engine_runs import companions, exit_codes, start, start_two, write_masks, write_npz
from faults import Fault

from selfdistill.core import METHODS
from selfdistill.recipe.build_method import unsupported_reason
from selfdistill.recipe.options import method_classes
from selfdistill.tasks import Classification, Segmentation

ON_GRAPHS = [name for name in METHODS if METHODS[name].needs.graphs]  # no run trains them
DENSE = [
    name
    for name in METHODS
    if unsupported_reason(METHODS[name], Classification)
    and not unsupported_reason(METHODS[name], Segmentation)
]
WITH_TOKENS = [name for name in METHODS if METHODS[name].needs.distillation_token]
STEPS = 15  # 3 epochs of 5


class Straight(NamedTuple):
    """A run that nothing disturbed, what its processes counted, and how long it took."""

    out: Path
    counts: list[dict[str, int]]
    seconds: float


class Runs:
    """Runs on the same few pictures, which save every so many steps in one process and in two."""

    def __init__(self, root: Path, save_every_steps: tuple[int, int] = (2, 2)) -> None:
        self.root, self.save_every_steps = root, save_every_steps
        self.npz, self.masks = write_npz(root / "tiny.npz"), write_masks(root / "masks")
        self.known: dict[tuple[str, int], Straight] = {}
        exit_codes([start(self.keys("ce", 1) | {"out": str(root / "first")})])  # the server imports

    def keys(self, method: str, processes: int) -> dict[str, Any]:
        network, data = {"dropout": 0.2}, {"data": f"npz:{self.npz}"}
        if method in DENSE:
            network |= {"dense": True}
            data = {"data": f"folder:{self.masks}", "task": "segmentation", "val_fraction": 0.25}
        needs = [each.needs for each in method_classes(method).values()]
        if any(need.unlabeled for need in needs):
            data["extra"] = data["data"]
        if any(need.embeddings for need in needs):
            network["classes"] = 8  # it gives features like the teacher's
        return {
            "method": method, "model": network, "device": "cpu", "epochs": 3, "batch_size": 8,
            "save_every_steps": self.save_every_steps[processes - 1], "log_every_steps": 1,
            "ema_decay": 0.9, **data,
            **companions(method, lambda: network),
        }  # fmt: skip

    def start(self, method: str, out: Path, faults: list[Fault]) -> list[Any]:
        keys = self.keys(method, len(faults)) | {"resume": (out / "recipe.toml").exists()}
        if len(faults) == 2:
            return start_two(out, keys, faults)
        return [start(keys | {"out": str(out)}, fault=faults[0])]

    def straight(self, method: str, processes: int) -> Straight:
        if (method, processes) not in self.known:
            out = self.root / f"{method}-{processes}"
            begun = time.monotonic()
            assert exit_codes(self.start(method, out, [Fault()] * processes)) == [0] * processes
            seconds = time.monotonic() - begun
            files = [out.with_suffix(f".rank{rank}.json") for rank in range(processes)]
            counts = [json.loads(file.read_text()) for file in files]
            self.known[method, processes] = Straight(out, counts, seconds)
        return self.known[method, processes]
