"""Display names of metrics."""

_SHOWN = {
    "miou": "mIoU",
    "map": "mAP",
    "map50": "mAP@0.5",
    "iou": "IoU",
    "ap": "AP",
    "similarity": "cosine similarity",
    "micro_f1": "micro-F1",
    "ap50": "AP@0.5",
}


def shown_metric(name: str) -> str:
    """The display name of a metric: "mIoU" for "miou"; plain words stay as they are."""
    return _SHOWN.get(name, name)
