"""What people call a metric."""

_SHOWN = {
    "miou": "mIoU",
    "map": "mAP",
    "map50": "mAP@0.5",
    "iou": "IoU",
    "ap": "AP",
    "ap50": "AP@0.5",
}


def shown_metric(name: str) -> str:
    """A metric's name for people: "mIoU" for "miou"; a plain word stays as it is."""
    return _SHOWN.get(name, name)
