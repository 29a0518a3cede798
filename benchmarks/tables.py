"""Write docs/measurements.md from the csv files in results/.

uv run python benchmarks/tables.py
"""

import csv
from collections.abc import Sequence
from pathlib import Path

HERE = Path(__file__).parent
PAGE = HERE.parent / "docs" / "measurements.md"
EARLIER = (
    "The runs were made while the code was being finished, over several commits before the one "
    "named here; the command trains them anew. The rows `muse*` and `mimkd` were run when a "
    "term's weight was also its critic's learning rate; now critics learn at their full rate, and "
    "the rows are to be made again."
)

TABULATED = "The runs were made at commit {}; without `--done` the command makes them anew."
TAUGHT = (
    "`cifar/resnet8`, 84 k parameters, taught by one `cifar/resnet20` that was trained by the same "
    "recipe on the same images. Methods of stages read the three of the CRD benchmark, and critics "
    "learn at their full rate."
)


def rows(name: str) -> list[dict[str, str]]:
    """A result file, or nothing where it was not made."""
    path = HERE / "results" / f"{name}.csv"
    if not path.exists():
        return []
    with path.open(encoding="utf-8") as stream:
        return list(csv.DictReader(stream))


def table(header: Sequence[str], lines: Sequence[Sequence[str]]) -> str:
    """A markdown table."""
    marks = ["---" if i == 0 else "---:" for i in range(len(header))]
    return "\n".join(f"| {' | '.join(line)} |" for line in (header, marks, *lines))


def origin(found: list[dict[str, str]]) -> str:
    """Where the figures come from, as one line."""
    first = found[0]
    return (
        f"{first['machine']}; torch {first['torch']}; commit {first['commit']}; {first['date']}; "
        f"`{first['command']}`"
    )


def difference_name(row: dict[str, str]) -> str:
    """A difference's name, with the exit's where there is one of each."""
    return ", ".join(
        filter(None, (row["difference"], row.get("exit", "").replace("student", "final")))
    )


def accuracy(name: str, title: str, about: str, note: str = EARLIER) -> str:
    """One small study: the score of each exit on test images, and paired differences."""
    found = rows(name)
    if not found:
        return ""
    every = dict.fromkeys(r["exit"] for r in found)
    exits = [*(e for e in every if e.startswith("exit")), "student"]
    others = [e for e in every if e not in exits]
    cells = {
        (r["row"], r["exit"]): f"{r['mean']} ± {r['std']}" for r in found if r["split"] == "test"
    }
    names = list(dict.fromkeys(r["row"] for r in found))
    lines = [[name, *(cells.get((name, e), "") for e in exits)] for name in names]
    for line in lines if others else ():
        beside = (f"{e} {cells[line[0], e]}" for e in others if (line[0], e) in cells)
        line.append(", ".join(beside))
    seeds = {r["row"]: r["n"] for r in found}
    n = ", ".join(f"{many} ({row})" for row, many in seeds.items())
    n = n if len(set(seeds.values())) > 1 else found[0]["n"]
    paired = [
        [difference_name(r), r["split"], r["mean"], f"{r['low']} … {r['high']}", r["verdict"]]
        for r in rows(f"{name}-paired")
        if not r["difference"].startswith("ce ")
    ]
    heads = ["final" if e == "student" else e.replace("exit", "exit ") for e in exits]
    return "\n\n".join(
        [
            f"## {title}",
            f"{about} Test images, last epoch, mean ± standard deviation, n = {n} seeds:",
            table(["row", *heads, *["beside it"] * bool(others)], lines),
            "Differences, of the final exit if none is named, paired by seed, in points, with 95 % "
            "t intervals:",
            table(["difference", "images", "mean", "interval", ""], paired),
            *[note] * bool(note),
            origin(found),
        ]
    )


def cifar100(name: str, images: str, epochs: int) -> str:
    """The table of a study on part of CIFAR-100."""
    return accuracy(
        name,
        f"CIFAR-100, {images} images, {epochs} epochs, a small network",
        f"`cifar/resnet10_w16` (320,436 parameters), {images} training images, {epochs} epochs, "
        "batch 128, SGD 0.1 with Nesterov momentum 0.9, weight decay 5e-4, a fifth of the epochs "
        "warm-up, cosine, bf16; 5,000 held-out training images for validation. Top-1 in percent.",
    )


def scenes() -> list[str]:
    """Segmentation and detection: scores, and what a step costs."""
    shared = "bf16, batch 16, SGD, weight decay 5e-4, mirror and zoom;"
    return [
        accuracy(
            "accuracy-camvid",
            "CamVid, segmentation with a small network",
            "`fpn/small` (305,163 parameters) on 367 images brought to 128×128, 11 classes, 40 "
            f"epochs, {shared} rate 0.05, 4 epochs warm-up, cosine. mIoU in percent.",
        ),
        steps("speed-steps-camvid", "Step time, segmentation with fpn/small at 128×128"),
        accuracy(
            "accuracy-bccd",
            "BCCD, detection with YOLOv5-N",
            "`yolov5/n` (1,778,344 parameters) on 205 images letterboxed to 160×160, 3 classes, 40 "
            f"epochs, {shared} rate 0.02 falling to a fifth, momentum 0.937, 3 epochs warm-up, "
            "cosine; exits have a supervised loss of weight 1. mAP over IoU .5 … .95 in percent.",
        ),
        steps("speed-steps-bccd", "Step time, detection with yolov5/n at 160×160"),
    ]


def figure(line: dict[str, str]) -> str:
    """Mean and deviation; of one run its figure."""
    return f"{line['mean']} ± {line['std']}" if line["std"] else f"{line['mean']} (one seed)"


def of_2000_images(precision: str, pixels: int) -> str:
    """The recipe of the studies of many methods."""
    return (
        f"2,000 training images, {pixels}×{pixels}, 20 epochs, batch 128, SGD 0.1 with Nesterov "
        "momentum 0.9, weight decay 5e-4, a fifth of the epochs warm-up, cosine, "
        f"{precision}; every method with its paper's defaults. So short a training on so few "
        "images underfits: it does not show how methods rank when trained to the end."
    )


def methods(name: str, title: str, about: str, note: str = EARLIER) -> str:
    """One small study of many methods: test accuracy of the student, and of what stays beside."""
    found = rows(name)
    if not found:
        return ""
    test = [r for r in found if r["split"] == "test"]
    gains = {
        tuple(r["difference"].split(" - ")): f"{r['mean']} ({r['low']} … {r['high']})"
        for r in rows(f"{name}-paired")
        if r["split"] == "test"
    }
    bases = list(dict.fromkeys(base for _, base in gains))
    lines = []
    for row in dict.fromkeys(r["row"] for r in test):
        own = {r["exit"]: figure(r) for r in test if r["row"] == row}
        beside = ", ".join(f"{exit} {value}" for exit, value in own.items() if exit != "student")
        lines.append([row, own["student"], *(gains.get((row, b), "") for b in bases), beside])
    header = ["row", "student", *(f"minus {base}" for base in bases), "beside it"]
    if not any(line[-1] for line in lines):
        header, lines = header[:-1], [line[:-1] for line in lines]
    seeds = {r["row"]: r["n"] for r in test}
    fewer = [f"{n} of {row}" for row, n in seeds.items() if n != test[0]["n"]]
    n = ", ".join([test[0]["n"], *fewer])
    return "\n\n".join(
        [
            f"## {title}",
            f"{about} Top-1 on the test images, last epoch, mean ± standard deviation of {n} "
            f"seeds; differences are paired by seed, with a 95 % t interval. {note}".rstrip(),
            table(header, lines),
            origin(found),
        ]
    )


def steps(name: str, title: str) -> str:
    """One table of step ratios."""
    found = rows(name)
    if not found:
        return ""
    kinds = list(dict.fromkeys(r["arithmetic"] for r in found))
    cells = {(r["case"], r["arithmetic"]): r["ratio_median"] for r in found}
    cases = list(dict.fromkeys(r["case"] for r in found))
    lines = [[case, *(cells.get((case, kind), "") for kind in kinds)] for case in cases]
    header = ["step", *kinds]
    about = ""
    if "flops_ratio" in found[0]:
        memory = {r["case"]: r for r in rows(f"memory-{name.partition('-')[2]}")}
        by_case = {r["case"]: r for r in found}
        header += ["multiply-adds", *["peak memory"] * bool(memory)]
        for line in lines:
            line.append(by_case[line[0]]["flops_ratio"])
            if memory:
                line.append(f"{memory[line[0]]['ratio']} ({memory[line[0]]['peak_mib']} MiB)")
        about = (
            " Beside it the multiply-adds of the step, forward and backward, over the plain one's."
        )
        if memory:
            about = (
                " Beside it the multiply-adds of the step, forward and backward, and the peak "
                "memory of a process that makes two steps, both over those of the plain one. The "
                f"teacher is {_teacher(found)}, a peer is like the student, CRD remembers 50,000 "
                "images."
            )
    return "\n\n".join(
        [
            f"## {title}",
            "Time of an optimizer step ÷ that of plain training in the same arithmetic, "
            f"median of {found[0]['rounds']} interleaved rounds, batch {found[0]['batch']}.{about}",
            table(header, lines),
            origin(found),
        ]
    )


def _teacher(found: list[dict[str, str]]) -> str:
    return next((r["teacher"] for r in found if r.get("teacher")), "none")


def plain(name: str, title: str, about: str, columns: dict[str, str]) -> str:
    """A result file as it is: {column of the file: heading}."""
    found = rows(name)
    if not found:
        return ""
    lines = [[r[column] for column in columns] for r in found]
    return "\n\n".join([f"## {title}", about, table([*columns.values()], lines), origin(found)])


def deployed() -> list[str]:
    """What the exits cost, as files and image by image, and what the stages tell."""
    sides = {"parameters": "params", "macs": "MACs"}
    counts = {
        f"{part}_{cost}_{how}": f"{part} {word}, {how}"
        for part in ("whole", "exit")
        for cost, word in sides.items()
        for how in ("printed", "paper", "actual")
    }
    return [
        plain(
            "speed-exported-resnet18",
            "Exported exits in onnxruntime, ResNet-18 at 32×32",
            "Latency ÷ that of the whole network exported alike, beside the multiply-adds. Goals: "
            "0.36, 0.60, 0.82. Ratios that lie below the multiply-adds' say that the machine was "
            "busy, not that an exit is that fast.",
            {
                "bottleneck": "bottleneck",
                "predictor": "exit",
                "batch": "batch",
                "threads": "threads",
                "macs_ratio": "multiply-adds",
                "ratio_median": "latency, median",
                "ratio_of_minima": "latency, of minima",
            },
        ),
        plain(
            "anytime-cifar100-small",
            "Anytime inference, CIFAR-100",
            "The runs of the first table, 5 seeds; thresholds are chosen on 5,000 validation "
            "images for a loss of so many points. Test top-1 in percent, change against the "
            "student in points, multiply-adds in percent of the student's, and the share of "
            "images that leave at each exit.",
            {
                "method": "method",
                "choice": "choice",
                "accuracy": "top-1",
                "change": "change",
                "change_std": "±",
                "macs": "multiply-adds",
                "macs_std": "±",
                **{f"share_{e}": e for e in ("exit1", "exit2", "exit3", "student")},
            },
        ),
        plain(
            "anytime-latency",
            "Anytime inference, one image at a time",
            "Time of an image ÷ that of the student alone, in the same runtime. On a network this "
            "small a decision in eager torch costs more than the layers it saves.",
            {
                "method": "method",
                "max_loss": "points lost",
                "runtime": "runtime",
                "macs_ratio": "multiply-adds",
                "latency_ratio": "latency",
            },
        ),
        plain(
            "information-cifar100-small-paired",
            "What training with exits changes inside, CIFAR-100",
            "Critics trained alone on the finished, frozen networks of the first table: held-out "
            "loss, paired by seed; below zero is more information than in plain training.",
            {"difference": "networks", "term": "term", "n": "n", "mean": "mean", "low": "low"}
            | {"high": "high", "verdict": "verdict"},
        ),
        plain(
            "costs-table3",
            "The costs of MUSE's Table 3, counted its way and by what runs",
            "Millions. `printed` stands in the paper, `paper` is its rule as it was found out, "
            "`actual` counts heads, BatchNorm, the last layer and pooling as they are.",
            {"network": "network", "side": "pixels", "exit": "exit", **counts},
        ),
    ]


def quantized() -> list[str]:
    """What int8 costs and saves."""
    accuracy = {"network": "network", "row": "row", "n": "n"}
    for field, name in {"run": "run", "float32": "float32 file", "int8": "int8 file"}.items():
        accuracy |= {field: name, f"{field}_std": "±"}
    return [
        plain(
            "accuracy-quantization",
            "Int8 after training and in training",
            "Ten classes of CIFAR-100 (3, 13, … 93), 4,470 training images, 8 epochs in float32; "
            "then 2 at a tenth of the rate from there, with int8 simulated (`aware`) or without. "
            "Top-1 in percent on the 1,000 test images, as the run has it and as onnxruntime runs "
            "its files; `lost` is what int8 costs against the same run's float32 file.",
            accuracy | {"lost": "lost"},
        ),
        plain(
            "accuracy-quantization-paired",
            "Int8, differences",
            "Paired by seed, in points, with 95 % t intervals.",
            {"network": "network", "difference": "difference", "n": "n", "mean": "mean"}
            | {"low": "low", "high": "high", "verdict": "verdict"},
        ),
        plain(
            "speed-int8",
            "Int8 in onnxruntime",
            "Latency of the int8 file ÷ that of the float32 file, one thread, in turns; what they "
            "score is of a training too short to speak of accuracy.",
            {"model": "network", "batch": "batch", "ratio_median": "ratio"}
            | {"float32_milliseconds": "float32, ms", "int8_milliseconds": "int8, ms"}
            | {"float32_bytes": "float32, bytes", "int8_bytes": "int8, bytes"},
        ),
    ]


def feature_distillation() -> list[str]:
    """What features that were learned without labels are worth before few labels."""
    return [
        plain(
            "accuracy-feature-distillation",
            "CIFAR-100, features of ImageNet before few labels",
            "`cifar/resnet8` at 32×32, fine-tuned by labels for 30 epochs: from random weights, "
            "from random weights for three times as many epochs, and from weights that learned, "
            "by `feature-kd` and without a label, the features of EfficientNet-lite0 (ImageNet's "
            "weights, 64×64) on 4,000 images, 10 epochs. Test top-1, last epoch, in percent.",
            {"row": "row", "n": "n", "mean": "mean", "std": "±"},
        ),
        plain(
            "accuracy-feature-distillation-paired",
            "CIFAR-100, features of ImageNet before few labels, differences",
            "Paired by seed, in points, with 95 % t intervals.",
            {"difference": "difference", "n": "n", "mean": "mean", "low": "low", "high": "high"}
            | {"verdict": "verdict"},
        ),
    ]


def kept_teachers() -> list[str]:
    """What a teacher costs that runs, and one whose outputs are kept."""
    columns = {"case": "teacher", "ratio_median": "step", "bytes_per_output": "bytes a view"}
    cases = (
        "Time of a step of an epoch, loading and reading included, ÷ that of plain training, "
        "median of interleaved epochs: with the teacher live, in the epoch in which its outputs "
        "are computed and kept, and from then on."
    )
    return [
        plain(
            "speed-teacher-cache",
            "A teacher whose outputs are kept, ResNet-34 to ResNet-18 at 32×32",
            f"{cases} All 100 scores in fp32.",
            columns,
        ),
        plain(
            "speed-teacher-cache-224",
            "A teacher whose outputs are kept, ResNet-34 to ResNet-18 at 224×224",
            f"{cases} The 28 largest of 1,000 scores in fp16.",
            columns,
        ),
    ]


def loops() -> str:
    """The loop and the loader."""
    parts = ["## The loop and the loader"]
    for found in (rows("speed-loop"), rows("speed-loader")):
        if found and "ours_images_per_second" in found[0]:
            r = found[0]
            parts += [
                f"Resident loader {int(r['ours_images_per_second']):,} images/s, torchvision's "
                f"pipeline {int(r['torchvision_images_per_second']):,} images/s, ratio "
                f"{r['ratio_median']} (crop, flip, normalize; 32×32, one process).",
                origin(found),
            ]
        elif found:
            r = found[0]
            parts += [
                f"Our loop ÷ a bare hand-written one, {r['model']}, batch {r['batch']}: "
                f"{r['ratio_median']} (median of {r['rounds']}; {r['ratio_min']} to "
                f"{r['ratio_max']}).",
                origin(found),
            ]
    return "\n\n".join(parts)


def main() -> None:
    parts = [
        "# Measurements",
        "Made by `benchmarks/tables.py` from `benchmarks/results/*.csv`; do not edit by hand. "
        "The machine is shared: speeds are ratios within one run.",
        accuracy(
            "accuracy-cifar100-quarter-resnet18",
            "CIFAR-100, 12,500 images, 100 epochs, ResNet-18",
            "The first part of the [study](study.md): `cifar/resnet18`, the ledger's rows of "
            "MUSE's Table 5 (BYOT's bottleneck, concat critics, λ = 0.1, critics at their full "
            "rate) in half their epochs, bf16, compiled. Top-1 in percent; no image was held out.",
            "",
        ),
        plain(
            "accuracy-cifar100-quarter-resnet18-training",
            "The same runs while they were trained",
            "Each loss with its weight, on training batches, mean over the runs of a row; 1.386 is "
            "chance for MI (`mutual`) and SI (`self`). Images a second of one run, six at a time "
            "on the card.",
            {"row": "row", "n": "n", "images_per_second": "images a second", "loss": "loss"}
            | {"first_epoch": "first epoch", "last_epoch": "last epoch"},
        ),
        cifar100("accuracy-cifar100-small", "4,000", 40),
        cifar100("accuracy-cifar100-1000x120", "1,000", 120),
        methods(
            "accuracy-cifar100-2000x20-offline",
            "CIFAR-100, offline methods at 32×32",
            f"{TAUGHT} {of_2000_images('fp32', 32)}",
            note="The runs were made over several commits before the one named here; the command "
            "trains them anew. Every method has five seeds at 16×16, `mimkd` among them.",
        ),
        methods(
            "accuracy-cifar100-offline",
            "CIFAR-100, offline methods",
            f"{TAUGHT} For `sskd` and `hsakd` heads were trained on that network, of which nothing "
            "else was changed; `lakd` and `residual-kd` are reconstructions. "
            f"{of_2000_images('fp32', 16)}",
            note="The runs were made at commits b271d17 and 43a05fb; without `--done` the command "
            "makes them anew.",
        ),
        methods(
            "accuracy-cifar100-pool",
            "CIFAR-100 and images without labels",
            "`cifar/resnet8`, taught by a `cifar/resnet20` that was trained on all 45,000 training "
            "images for six epochs. `srrl-joint` and `srrl-separate` learn from as many of 9,834 "
            "web pictures (Tiny ImageNet without classes like CIFAR-100's) as from labeled images, "
            "`kd3` from these pictures alone, in as many steps, without a label. "
            f"{of_2000_images('fp32', 16)}",
            note=TABULATED.format("533458d"),
        ),
        methods(
            "accuracy-cifar100-2000x20-online",
            "CIFAR-100, online methods",
            f"Two `cifar/resnet8`, of which the first is the student. {of_2000_images('bf16', 32)}",
        ),
        methods(
            "accuracy-actions",
            "Clips of ten sport actions",
            "`clips/r3d10_w8` on 741 clips of UCF101's ten actions, 8 frames of 32×32 a clip, 30 "
            "epochs, batch 32, SGD 0.05, 2 epochs warm-up, cosine, fp32; 223 test clips of other "
            "groups. `two-views` is `skd-srl` without its terms: cross-entropy of two views.",
            note="",
        ),
        *feature_distillation(),
        plain(
            "accuracy-graphs",
            "Nodes of graphs",
            "Test accuracy in percent of a GCN of width 16 on the Planetoid splits, taught by a "
            "GAT of eight heads of eight, full batch, Adam at 0.01, 200 epochs, last epoch.",
            {"data": "graph", "row": "row", "n": "n", "mean": "mean", "std": "±"},
        ),
        plain(
            "accuracy-graphs-paired",
            "Nodes of graphs, differences",
            "Paired by seed, in points, with 95 % t intervals.",
            {"data": "graph", "difference": "difference", "mean": "mean", "low": "low"}
            | {"high": "high", "verdict": "verdict"},
        ),
        steps("speed-methods-resnet18", "Step time of every method, ResNet-18 at 32×32"),
        steps("speed-related-resnet18", "Step time of the related systems, ResNet-18 at 32×32"),
        plain(
            "speed-public-resnet18",
            "Steps beside public code, ResNet-18 at 32×32",
            "Time of an optimizer step, batch 16, fp32, median of interleaved rounds, over that "
            "of our plain training and over that of the public code; of `auto` ours with channels "
            "last, which is what this processor gets by default. A host reads a number where it "
            "would wait for a GPU; saved is what the forward pass keeps for the backward one. The "
            "public side was transcribed, operation by operation, from the repositories that the "
            "script names. The teacher of kd, at and crd is a ResNet-34.",
            {
                "method": "step",
                "code": "public code",
                "ours_to_plain": "ours ÷ plain",
                "public_to_plain": "public ÷ plain",
                "ours_to_public": "ours ÷ public",
                "ours_auto_to_public": "auto ÷ public",
                "our_reads": "host reads, ours",
                "public_reads": "public",
                "our_mib": "MiB saved, ours",
                "public_mib": "public",
            },
        ),
        plain(
            "speed-memory-format",
            "Channels last",
            "Time of a plain step with channels last over that in the usual memory format, fp32, "
            "in turns.",
            {"network": "network", "batch": "batch", "size": "side", "ratio": "ratio"},
        ),
        steps("speed-steps-resnet18", "Step time, ResNet-18 at 32×32"),
        steps("speed-steps-cuda-resnet18", "Step time on a GPU, eager, ResNet-18 at 32×32"),
        steps("speed-steps-resnet10-w16", "Step time, resnet10_w16 at 32×32"),
        *kept_teachers(),
        *scenes(),
        *deployed(),
        *quantized(),
        loops(),
        plain(
            "speed-sources",
            "Sources of images as they grow",
            "JPEG of 32×32, streamed; one process. What is opened is listed or indexed the first "
            "time, and again read from what was kept. Describing is the digest that each start "
            "compares. Memory is what the process holds more when the set is open, and the most "
            "that it took until it was described, of Arrow with the mapped pages of its file, "
            "which are the system's to take back. Images a second are decoded one by one in random "
            "order, all sizes in turn; the ratio is to the smallest set, the median of ten turns.",
            {
                "source": "source",
                "images": "images",
                "opened": "opened",
                "seconds_to_open": "open, s",
                "seconds_to_describe": "describe, s",
                "held_mib": "held, MiB",
                "peak_mib": "most, MiB",
                "images_per_second": "images a second",
                "ratio_median": "ratio",
            },
        ),
        plain(
            "refusals",
            "Wrong commands",
            "Processor seconds, user and system, until a command is refused; n = 5, on a machine "
            "that others use, too. Goal: 1 where torch is not needed, else 5.",
            {
                "fault": "fault",
                "median": "median",
                "least": "least",
                "most": "most",
                "goal": "goal",
            },
        ),
    ]
    PAGE.write_text("\n\n".join(part for part in parts if part) + "\n", encoding="utf-8")
    print(PAGE)


if __name__ == "__main__":
    main()
