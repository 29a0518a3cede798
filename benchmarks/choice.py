"""Write docs/guide/choose.md: what a method gains and costs, from the csv files in results/.

uv run python benchmarks/choice.py
"""

import math
from pathlib import Path
from typing import NamedTuple

from choice_sections import features_first, fine_tuning, short_runs, shorter_networks
from record import recorded
from result_tables import signed, table

import selfdistill.methods  # noqa: F401  registers them
from selfdistill.core import METHODS
from selfdistill.recipe import default_method as defaults
from selfdistill.recipe.build_method import unsupported_reason
from selfdistill.tasks import TASKS

PAGE = Path(__file__).parents[1] / "docs" / "guide" / "choose.md"
EXITS = ("exits", "byot", "muse")
CHEAP = 1.3  # plain steps that one may cost and still be called cheap
VARIANTS = {
    "muse-add": ("muse", "MI+SI"),
    "muse-mul": ("muse", "MI×SI"),
    "muse-class": ("muse", "pairs of a class"),
    "muse-offline-add": ("muse-offline", "MI+SI"),
    "muse-offline-mul": ("muse-offline", "MI×SI"),
    "muse-online-add": ("muse-online", "MI+SI"),
    "muse-online-mul": ("muse-online", "MI×SI"),
    "srrl-joint": ("srrl", "web images too (joint)"),
    "srrl-separate": ("srrl", "web images too (separate)"),
    "wttm": ("ttm", "weighted"),
    "kd, standardized": ("kd", "standardized logits"),
}
"""{row: its method, and what makes it another than the method as it is}."""
KEPT_VIEWS = (
    "kd, 1 view",
    "kd, 4 views",
)  # of a method that has a row; on the teacher cache's page
SPEEDS = ("speed-current-resnet18", "speed-related-resnet18", "speed-methods-resnet18")


class Choice(NamedTuple):
    """A row of a study: its gain over plain training in points, and its step's cost, if known."""

    row: str
    n: int
    gain: float
    low: float
    high: float
    step: float
    memory: float

    @property
    def method(self) -> str:
        return method_of(self.row)

    @property
    def variant(self) -> str:
        return VARIANTS.get(self.row, ("", ""))[1]

    @property
    def named(self) -> str:
        return f"`{self.method}`" + f" ({self.variant})" * bool(self.variant)

    def cells(self) -> list[str]:
        name = f"[`{self.method}`](../methods/{self.method}.md)"
        gain = f"{signed(self.gain)} ({signed(self.low)} … {signed(self.high)})"
        tasks = [
            name
            for name, task in TASKS.items()
            if not unsupported_reason(METHODS[self.method], task)
        ]
        others = ", ".join(tasks[1:]) or "–"
        costs = ["–" if math.isnan(cost) else f"{cost:.1f}" for cost in (self.step, self.memory)]
        return [", ".join(filter(None, (name, self.variant))), gain, *costs, others]


def method_of(row: str) -> str:
    """The method of a row, `muse-offline` of `muse-offline-add`."""
    return VARIANTS.get(row, (row, ""))[0]


def choices(study: str) -> list[Choice]:
    """The rows of a study, by the lower end of the gain's interval, the highest first."""
    measured = [line for name in SPEEDS for line in recorded(name)]
    speed = {r["case"]: float(r["ratio_median"]) for r in measured}
    memory = {r["case"]: float(r["ratio"]) for r in recorded("memory-methods-resnet18")}
    found = []
    for line in recorded(f"{study}-paired"):
        row, _, base = line["difference"].partition(" - ")
        if line["split"] == "test" and base == "ce" and row not in KEPT_VIEWS:
            method = method_of(row)
            case = row.replace("-", " ") if row.startswith("srrl-") else method
            case = case if method in speed else f"{method} separable"
            mean, low, high = (float(line[key]) for key in ("mean", "low", "high"))
            costs = speed.get(case, math.nan), memory.get(case, math.nan)
            found.append(Choice(row, int(line["n"]), mean, low, high, *costs))
    return sorted(found, key=lambda choice: -choice.low)


def section(title: str, about: str, found: list[Choice]) -> str:
    header = ["method", "gain (95 % interval)", "step ×", "memory ×", "other tasks"]
    lines = table(header, [choice.cells() for choice in found])
    return f"## {title}\n\n{about} n = {found[0].n} seeds.\n\n{lines}"


def best(found: list[Choice]) -> Choice:
    """That of which the most is certain: of means alone the luckiest would win."""
    return max(found, key=lambda choice: choice.low)


def advice(alone: list[Choice], taught: list[list[Choice]], peers: list[Choice]) -> str:
    """What follows from the figures, by rules that are stated."""
    first, weak = best(alone), best(taught[0])
    strong = best([choice for choice in taught[1] if "web images" not in choice.variant])
    cheap = best([choice for choice in alone if choice.step <= CHEAP])
    exits, muse = (next(c for c in alone if c.row == row) for row in ("exits", "muse-add"))
    paired = {
        r["difference"]: r
        for r in recorded("accuracy-cifar100-small-confirmation-paired")
        if r["split"] == "test" and r["exit"] == "student"
    }
    mean, low, high = (
        signed(float(paired["muse-add - exits"][key])) for key in ("mean", "low", "high")
    )
    by_class = "{} points ({} … {})".format(
        *(
            signed(float(line[key]))
            for line in recorded("accuracy-cifar100-1000x120-confirmation-paired")
            if line["split"] == "test" and line["exit"] == "student"
            for key in ("mean", "low", "high")
        )
    )
    online = ", ".join(choice.named for choice in peers if choice.low > 0)
    lines = [
        f"**The best network at the same inference cost**: {first.named}, {signed(first.gain)} "
        f"points, if a step may cost {first.step:.1f} plain ones.",
        f"**At hardly more than plain training** (a step of at most {CHEAP}): {cheap.named}, "
        f"{signed(cheap.gain)} points for {cheap.step:.2f} steps.",
        f"**A smaller network, or early exits**: {', '.join(f'`{name}`' for name in EXITS)} leave "
        f"exits behind, each a network of its own. `exits` gains {signed(exits.gain)} points at "
        f"the last one. MUSE's information terms add nothing to it: on ten further seeds MI+SI "
        f"minus `exits` is {mean} points ({low} … {high}), at {muse.step / exits.step:.2f} of its "
        "step ([study](../study.md#part-9-the-size-of-the-tables-critics-at-their-full-rate)). On "
        "1,000 images alone, with all images of a class as positives (`positives=class`), "
        f"{by_class} ([study](../study.md#part-10-positives-of-the-same-class-few-images)).",
        f"**A large network that is trained already**: {strong.named}, {signed(strong.gain)} "
        "points from a teacher that has seen far more images than there are to train with; "
        f"{weak.named}, {signed(weak.gain)}, from one that has seen the same few.",
        f"**Two networks at once**: {online or 'no online method'} gained anything beyond noise.",
        f"**A pretrained network and a few hundred pictures**: the network cut before its last "
        f"stage, {shorter_networks()} points above the whole one on three sets "
        "([a shorter network](fine-tune.md#a-shorter-network)).",
        f"**Many pictures and few labels**: `feature-kd` first, from a network that was trained on "
        f"others, then the labels: {features_first()} labels, over random weights "
        "([without labels](without-labels.md)).",
        "**Segmentation and detection**: nothing gained anything beyond noise on the two small "
        "sets that were measured ([Results](../results.md#segmentation-and-detection)); start with "
        "`ce`, and take `exits` if you want exits.",
    ]
    return "\n".join(f"- {line}" for line in lines)


def page() -> str:
    """The page, as markdown."""
    alone = choices("accuracy-cifar100-small")
    taught = choices("accuracy-cifar100-offline")
    well_taught = choices("accuracy-cifar100-pool")
    peers = choices("accuracy-cifar100-2000x20-online")
    taken = {
        "Images and classes, random weights": {},
        "The same by the preset `strong`": {"preset": "strong"},
        "Images and classes, pretrained weights": {"weights": "pretrained"},
        "Segmentation, detection, clips": {"task": "detection"},
        "Images without labels": {"task": "embedding"},
    }
    of_defaults = [[what, *defaults.default_method(keys)] for what, keys in taken.items()]
    parts = [
        "<!-- Made by benchmarks/choice.py from benchmarks/results/; do not edit by hand. -->",
        "# Choose a method",
        "What a method gains and what it costs, as far as it has been measured here: small "
        "networks on a part of CIFAR-100, trained for minutes on a CPU. These studies rank methods "
        "where data are few and training is short; on other data the order may be another, so "
        "[compare](compare.md) two or three on yours. Gains are in points of test accuracy over "
        "plain training with the same recipe and seeds; rows are ordered by the lower end of the "
        "95 % interval, and one that holds 0 shows nothing. "
        "Step and memory are multiples of plain training's, on a ResNet-18 on a CPU; on a GPU the "
        "exits' many small layers cost [more](../measurements.md).",
        "## What follows",
        advice(alone, [taught, well_taught], peers),
        "## What is taken where no method is named",
        table(["", "method", "because"], of_defaults),
        section(
            "Without a teacher",
            "4,000 images, 40 epochs, `cifar/resnet10_w16`; every method at its paper's weights.",
            alone,
        ),
        section(
            "Without a teacher, by a strong recipe",
            "1,000 images of 16×16, 160 epochs, `cifar/resnet10_w16`, the preset `strong` without "
            "mixup and CutMix, which brings plain training 1.6 points; "
            "[part 7](../study.md#part-7-over-a-strong-plain-baseline) of the study. On five fresh "
            "seeds none of the best three, `mixskd`, `ddgsd` and `byot`, gained beyond noise.",
            choices("accuracy-strong"),
        ),
        section(
            "From a teacher",
            "2,000 images of 16×16, 20 epochs, `cifar/resnet8` from a `cifar/resnet20` trained on "
            "the same images: a weak teacher, and so short a training shows how fast a method "
            "starts.",
            taught,
        ),
        section(
            "From a teacher that knows more",
            "The same student and images; the teacher has seen all 45,000. `kd3` reads no label.",
            well_taught,
        ),
        section(
            "With a peer",
            "2,000 images, 20 epochs, two `cifar/resnet8` that start together.",
            peers,
        ),
        fine_tuning(),
        short_runs(),
        "All figures, with machines, commits and commands: [Measurements](../measurements.md).",
    ]
    return "\n\n".join(parts) + "\n"


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
    print(PAGE)
