"""The sections of docs/measurements.md on time, memory and size."""

from record import recorded
from result_tables import origin, plain, steps


def step_times() -> list[str]:
    """What a training step costs."""
    return [
        steps("speed-methods-resnet18", "Step time of every method, ResNet-18 at 32×32"),
        steps("speed-related-resnet18", "Step time of the related systems, ResNet-18 at 32×32"),
        steps("speed-current-resnet18", "Step time of recent methods, ResNet-18 at 32×32"),
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


def loops() -> str:
    """The loop and the loader."""
    parts = ["## The loop and the loader"]
    for found in (recorded("speed-loop"), recorded("speed-loader")):
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


def beginnings() -> list[str]:
    """What opening a set and refusing a command cost."""
    return [
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
