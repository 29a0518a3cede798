"""What MUSE's Table 3 prints, what its way of counting gives here, and what really runs.

    uv run python benchmarks/costs.py

Nothing is trained or timed. The exit is the one that the paper takes, with BYOT's bottleneck.
"""

from collections.abc import Sequence
from typing import cast

import torch
from record import record

from selfdistill.costs.macs import network_cost
from selfdistill.costs.paper_macs import paper_network_cost
from selfdistill.models import build
from selfdistill.modules.exits import Exits
from selfdistill.taps import Taps
from selfdistill.tasks import Classification

CLASSES = [str(i) for i in range(100)]
# The network and the side of its images, which exit; millions of parameters and of multiply-adds as
# printed, of the whole network and of the exit.
TABLE_3 = [
    ("vgg19_bn", 32, 3, "20.0", "20499", "2.3", "2380"),
    ("resnet18", 32, 3, "11.2", "256", "2.8", "248"),
    ("resnet34", 32, 3, "21.3", "393", "8.2", "380"),
    ("resnet34", 64, 3, "21.3", "1543", "8.2", "1520"),
    ("resnet50", 32, 2, "23.4", "431", "1.4", "370"),
    ("resnet101", 32, 2, "42.4", "507", "1.4", "370"),
    ("resnet152", 32, 2, "58.0", "636", "2.5", "441"),
    ("nasnet", 32, 3, "5.1", "241", "1.9", "238"),
    ("efficientnet_b0", 224, 2, "4.0", "454", "0.8", "290"),
]


def row(name: str, side: int, place: int, *printed: str) -> dict[str, object]:
    """One line of the table, counted three ways; in millions."""
    network, image = build(f"cifar/{name}", num_classes=100), torch.zeros(2, 3, side, side)
    student = Taps(network, cast(Sequence[str], network.cuts), example=image)
    predictors = Exits(student, Classification(CLASSES, image), "byot").predictors(student)
    cuts = {"whole": None, "exit": student.names[place - 1]}
    found: dict[str, object] = {"network": name, "side": side, "exit": place}
    for (what, until), printing in zip(cuts.items(), (printed[:2], printed[2:]), strict=True):
        ours = predictors[f"exit{place}" if until else "student"]
        counted = {
            "paper": paper_network_cost(network, image, until),
            "actual": network_cost(ours, image),
        }
        found |= {f"{what}_parameters_printed": printing[0], f"{what}_macs_printed": printing[1]}
        for way, spent in counted.items():
            found[f"{what}_parameters_{way}"] = round(spent.parameters / 1e6, 3)
            found[f"{what}_macs_{way}"] = round(spent.macs / 1e6, 2)
    return found


if __name__ == "__main__":
    record("costs-table3", [row(*line) for line in TABLE_3])
