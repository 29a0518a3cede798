"""What a model card says of use: lines of Python that run, and what goes in and comes out."""

from ..data import ImageData
from ..data.geometry import GRAY
from ..functional.boxes import IOU_THRESHOLD, MAX_DETECTIONS

SURE = 0.25
"""The score from which on the card's lines show a box."""

_ASK = {
    "onnx": """import json
import numpy as np
import onnxruntime

session = onnxruntime.InferenceSession("{file}")
classes = json.loads(session.get_modelmeta().custom_metadata_map["classes"])
images = np.load("images.npy")  # (B, C, H, W), bytes
{names} = session.run(None, {{"images": images.astype(np.float32) / 255}})""",
    "pt2": """import json
import torch

notes = {{"classes": ""}}
network = torch.export.load("{file}", extra_files=notes).module()
classes = json.loads(notes["classes"])
images = torch.load("images.pt")  # (B, C, H, W), bytes
{names} = network(images.float() / 255)""",
}
_ANSWER = {
    "classification": "print([classes[best] for best in logits.argmax(1)])",
    "segmentation": """masks = logits.argmax(1)  # (B, H, W), the class of each pixel
print([{name: int((mask == k).sum()) for k, name in enumerate(classes)} for mask in masks])""",
    "detection": f"""for image, sure in enumerate(scores >= {SURE}):
    found = zip(boxes[image][sure], labels[image][sure])
    print([(classes[k], box.tolist()) for box, k in found])""",
}
_WEIGHTS = """from safetensors import safe_open
from safetensors.torch import load_file

{network}
network.load_state_dict(load_file("{file}"))
network.eval()
notes = safe_open("{file}", "pt").metadata()  # classes, mean, std"""
_OURS = ("cifar", "fpn", "yolov5")  # families of networks that only this library makes


def code(format: str, task: str, file: str, network: str) -> str:
    """Lines of Python that run the file on a batch of pictures and print what it finds.

    Args:
        format: of the file.
        task: what it is for, a name in `tasks.TASKS`.
        file: its name.
        network: the lines that make the architecture, for weights alone.
    """
    if format == "safetensors":
        return _WEIGHTS.format(file=file, network=network)
    names = {"onnx": "(logits,)", "pt2": "logits"}[format]
    names = "boxes, scores, labels" if task == "detection" else names
    return f"{_ASK[format].format(file=file, names=names)}\n{_ANSWER[task]}"


def built(model: str, task: str, classes: int, channels: int) -> str:
    """The lines that make a recipe's network."""
    family, _, name = model.partition("/")
    if family == "timm":
        make = f"timm.create_model({name!r}, num_classes={classes}, in_chans={channels})"
        return f"import timm\n\nnetwork = {make}"
    if family in _OURS or (family == "torchvision" and task != "classification"):
        make = f"build({model!r}, num_classes={classes}, in_channels={channels})"
        return f"from selfdistill.models import build\n\nnetwork = {make}"
    if family == "torchvision":
        make = f"torchvision.models.get_model({name!r}, num_classes={classes})"
        return f"import torchvision\n\nnetwork = {make}"
    return f"network = {model}(...)"


def purpose(data: ImageData) -> str:
    """What the network does, a sentence."""
    classes = f"{len(data.classes)} class{'es' * (len(data.classes) > 1)}"
    if data.task == "detection":
        return f"It finds objects of {classes} in images."
    return f"It tells {classes} of {'pixels' if data.task == 'segmentation' else 'images'} apart."


def fitted(data: ImageData) -> str:
    """How a picture comes to the size that the network takes, a sentence."""
    _, height, width = data.train.shape
    size = f"{height} × {width}"
    if data.task == "detection":
        return (
            f"Shrink or enlarge a picture into {size} with its proportions kept, in the middle of "
            f"gray {GRAY}: boxes are in pixels of that frame."
        )
    return f"Resize pictures to {size} first."


def output(format: str, data: ImageData) -> str:
    """What comes out of the network, in sentences."""
    _, height, width = data.train.shape
    classes, raw = len(data.classes), format == "safetensors"
    if data.task == "classification":
        return f"The output is one logit a class, (B, {classes})."
    if data.task == "segmentation":
        size = "h, w), to be enlarged bilinearly" if raw else f"{height}, {width})"
        return f"The output is one logit a class and pixel, (B, {classes}, {size}."
    if raw:
        return f"`network(images).detections(({height}, {width}))` gives the boxes of each image."
    count = MAX_DETECTIONS
    return (
        f"The outputs are the {count} boxes of each image with the highest scores, in falling "
        f"order: `boxes` (B, {count}, 4), x1, y1, x2, y2 in pixels, `scores` (B, {count}) and "
        f"`labels` (B, {count}); where there are fewer, scores are 0. Of two boxes of one class "
        f"with an IoU above {IOU_THRESHOLD:g} the surer one is kept. Which score is sure enough is "
        f"yours to choose; the lines above take {SURE:g}."
    )
