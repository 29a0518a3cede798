"""The sections of docs/measurements.md on what networks score."""

from record import recorded
from result_tables import EARLIER, accuracy, methods, plain, steps

TABULATED = "The runs were made at commit {}; without `--done` the command makes them anew."
TAUGHT = (
    "`cifar/resnet8`, 84 k parameters, taught by one `cifar/resnet20` that was trained by the same "
    "recipe on the same images. Methods of stages read the three of the CRD benchmark, and critics "
    "learn at their full rate."
)


def cifar100(name: str, images: str, epochs: int, note: str = EARLIER) -> str:
    """The table of a study on part of CIFAR-100."""
    return accuracy(
        name,
        f"CIFAR-100, {images} images, {epochs} epochs, a small network",
        f"`cifar/resnet10_w16` (320,436 parameters), {images} training images, {epochs} epochs, "
        "batch 128, SGD 0.1 with Nesterov momentum 0.9, weight decay 5e-4, a fifth of the epochs "
        "warm-up, cosine, bf16; 5,000 held-out training images for validation. Top-1 in percent.",
        note,
    )


def of_2000_images(precision: str, pixels: int) -> str:
    """The recipe of the studies of many methods."""
    return (
        f"2,000 training images, {pixels}×{pixels}, 20 epochs, batch 128, SGD 0.1 with Nesterov "
        "momentum 0.9, weight decay 5e-4, a fifth of the epochs warm-up, cosine, "
        f"{precision}; every method with its paper's defaults. So short a training on so few "
        "images underfits: it does not show how methods rank when trained to the end."
    )


def strong_baseline() -> list[str]:
    """Gains over plain training by a plain and by a strong recipe."""
    about = (
        "`cifar/resnet10_w16`, 1,000 training images of 16×16, 160 epochs, batch 128, SGD 0.1 with "
        "Nesterov momentum 0.9, weight decay 5e-4, a fifth of the epochs warm-up, cosine, fp32; "
        "part 7 of the [study](study.md)."
    )
    strong = (
        "The preset `strong` without mixup and CutMix: TrivialAugment, erased rectangles, smoothed "
        "labels, no decay of norms, the average of the weights."
    )
    return [
        methods("accuracy-strong", "CIFAR-100, a strong recipe", f"{about} {strong}", note=""),
        methods(
            "accuracy-strong-confirmation",
            "CIFAR-100, a strong recipe on fresh seeds",
            f"{about} {strong} The best of the rows above, judged anew.",
            note="",
        ),
        methods(
            "accuracy-strong-scratch",
            "CIFAR-100, the same without it",
            f"{about} Crop and mirror alone.",
            note="",
        ),
    ]


def fine_tuning_methods() -> list[str]:
    """What methods gain where a pretrained network is fine-tuned."""
    about = (
        "EfficientNet-lite0 with ImageNet's weights by the preset `finetune`, some 600 pictures of "
        "64×64 of ten classes, 6 epochs, batch 32, fp32; `short` is plain training of the network "
        "cut before its last stage, `kd` learns from what plain training made of the same "
        "pictures; part 8 of the [study](study.md)."
    )
    sets = {"clothes": "", "frames of videos": "-frames"}
    return [
        methods(
            f"accuracy-fine-tuning-methods{ending}", f"Fine-tuning by methods, {name}", about, ""
        )
        for name, ending in sets.items()
    ]


def feature_distillation() -> list[str]:
    """What features that were learned without labels are worth before few labels."""
    sizes = {
        "": ("resnet8", "64×64", "4,000 images, 10 epochs", ""),
        "-45000": ("resnet10_w16", "128×128", "all 45,000 images, 20 epochs", ", 45,000 images"),
    }
    return [
        part
        for ending, size in sizes.items()
        for part in _feature_distillation(f"accuracy-feature-distillation{ending}", *size)
    ]


def _feature_distillation(
    name: str, model: str, side: str, images: str, title: str
) -> tuple[str, str]:
    title = f"CIFAR-100, features of ImageNet before few labels{title}"
    told = any(line["row"].startswith("features") for line in recorded(name))
    similarity = " Features: cosine similarity on held-out images, in percent." if told else ""
    scores = plain(
        name,
        title,
        f"`cifar/{model}` at 32×32, fine-tuned by labels for 30 epochs: from random weights, from "
        "random weights for three times as many epochs, and from weights that learned, by "
        "`feature-kd` and without a label, the features of EfficientNet-lite0 (ImageNet's weights, "
        f"{side}) on {images}. Test top-1, last epoch, in percent.{similarity}",
        {"row": "row", "n": "n", "mean": "mean", "std": "±"},
    )
    differences = plain(
        f"{name}-paired",
        f"{title}, differences",
        "Paired by seed, in points, with 95 % t intervals.",
        {"difference": "difference", "n": "n", "mean": "mean", "low": "low", "high": "high"}
        | {"verdict": "verdict"},
    )
    return scores, differences


def classification() -> list[str]:
    """Images, clips and graphs."""
    return [
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
        cifar100(
            "accuracy-cifar100-small",
            "4,000",
            40,
            "The rows `muse*` were run at the last commits that are named, with critics at their "
            "full rate, the others over several commits before the first. Seed 0 of `ce` and "
            "`exits`, made again at the second commit, has the same figures to the last digit.",
        ),
        accuracy(
            "accuracy-cifar100-small-confirmation",
            "The same on ten fresh seeds",
            "Parts 9 and 10 of the [study](study.md): what MI and SI, their critics at full rate, "
            "add to exits by the recipe above.",
            note="",
        ),
        cifar100("accuracy-cifar100-1000x120", "1,000", 120),
        accuracy(
            "accuracy-cifar100-1000x120-confirmation",
            "1,000 images on ten fresh seeds",
            "Part 10 of the [study](study.md): MI + SI with all images of a class as positives, "
            "λ = 0.3, beside exits by the recipe above.",
            note="",
        ),
        *strong_baseline(),
        *fine_tuning_methods(),
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
            "`kd3` from these pictures alone, in as many steps, without a label. `wttm` is "
            "weighted `ttm`, and `kd, standardized` has its authors' temperature of 2 and weight "
            "of 9; `kd, 1 view` and `kd, 4 views` have so many augmentations of each image, which "
            f"come again, others for each seed. {of_2000_images('fp32', 16)}",
            note=TABULATED.format("533458d and, `rkd` and the rows from it on, 1a2ec17"),
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
    ]


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
        accuracy(
            "accuracy-bccd-mosaic",
            "BCCD, with and without mosaic",
            "The same network, images and recipe in fp32, plain training: with mirror and zoom, "
            "and with YOLOv5's mosaic of four images (always), zoom by up to a half, shift by up "
            "to a tenth and colors. mAP over IoU .5 … .95 in percent.",
            note="",
        ),
        steps("speed-steps-bccd", "Step time, detection with yolov5/n at 160×160"),
    ]
