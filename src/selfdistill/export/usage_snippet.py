"""The usage section of a model card: code that runs, and sentences on inputs and outputs."""

from ..data import ImageData
from ..data.preparation import Preparation, preparation_of
from ..data.zoom import GRAY
from ..functional.boxes import IOU_THRESHOLD, MAX_DETECTIONS
from ..models.cut import MARK

SCORE_THRESHOLD = 0.25
"""The lowest score of a box that the card's code prints."""

_IMAGES = """images = np.stack([prepared(path) for path in ["picture.jpg"]])  # (B, C, H, W)"""
_PREPARE = """def prepared(path):
{read}
{resize}
    return np.array(image{gray}).reshape({height}, {width}, {channels}).transpose(2, 0, 1)

"""
_READ = """    image = ImageOps.exif_transpose(Image.open(path))
    if image.mode.startswith("I"):  # gray of 16 bits
        gray = np.asarray(image).astype("int64") * 255 + 32767
        image = Image.fromarray((gray // 65535).astype("uint8"))
    if image.has_transparency_data:
        white = Image.new("RGBA", image.size, "white")
        image = Image.alpha_composite(white, image.convert("RGBA"))
    image = image.convert("RGB")"""
"""Lines that read a picture, as `data.open_image` does."""
_CLIP = """
def clip(folder):
    files = sorted(Path(folder).iterdir())
    start = max(0, len(files) - {span}) // 2
    frames = [files[(start + i) % len(files)] for i in range(0, {span}, {stride})]
    return np.stack([prepared(frame) for frame in frames], 1)

"""
"""A function behind that of `_PREPARE`, which reads the central clip of a folder of frames."""
_CLIPS = """images = np.stack([clip(folder) for folder in ["frames"]])  # (B, C, T, H, W)"""
_RESIZE = {
    "stretch": """    image = image.resize(({width}, {height}), Image.Resampling.BILINEAR)""",
    "crop": """    scale = {ratio}max({width} / image.width, {height} / image.height){unless_equal}
    width = max({width}, round(image.width * scale))
    height = max({height}, round(image.height * scale))
    left, top = (width - {width}) // 2, (height - {height}) // 2
    image = image.resize((width, height), Image.Resampling.BILINEAR)
    image = image.crop((left, top, left + {width}, top + {height}))""",
    "letterbox": """    scale = min({width} / image.width, {height} / image.height)
    width = max(1, round(image.width * scale))
    height = max(1, round(image.height * scale))
    small = image.resize((width, height), Image.Resampling.BILINEAR)
    image = Image.new("RGB", ({width}, {height}), {ground})
    image.paste(small, (({width} - width) // 2, ({height} - height) // 2))""",
}
"""Lines that bring a picture to size, as `data.preparation` does."""
PRINT = {
    "embedding": "print(embedding.shape)  # (B, D); like images have a high cosine similarity",
    "classification": "print([classes[k] for k in logits.argmax(1)])",
    "segmentation": """masks = logits.argmax(1)  # (B, H, W), the class of each pixel
print([{name: int((mask == k).sum()) for k, name in enumerate(classes)} for mask in masks])""",
    "detection": f"""for image, kept in enumerate(scores >= {SCORE_THRESHOLD}):
    detections = zip(boxes[image][kept], labels[image][kept])
    print([(classes[k], box.tolist()) for box, k in detections])""",
}
"""Lines that print a prediction, by task."""
_OWN_FAMILIES = ("cifar", "fpn", "yolov5")  # networks that only this library builds


def graph_code(template: str, data: ImageData, file: str, names: str) -> str:
    """Python code that runs a file with a graph on pictures and prints the predictions.

    Args:
        template: the code of the file's runtime, with places for {imports}, {prepare}, {images},
            {file} and {names}; it turns `images`, bytes, into the outputs.
        data: at the image size of the file; `task` is a task of this package.
        file: its name.
        names: of the outputs, as the runtime's call is unpacked, see `output_names`.
    """
    preparation = preparation_of(data)
    prepare, images = preparation_code(preparation)
    imports = "from pathlib import Path\n" if preparation.clip else ""
    code = template.format(file=file, names=names, prepare=prepare, images=images, imports=imports)
    if data.task == "embedding":  # whose numbers have no names
        unused = ("import json", "classes = ")
        code = "\n".join(line for line in code.splitlines() if not line.startswith(unused))
    return f"{code}\n{PRINT[data.task]}"


def output_names(data: ImageData) -> str:
    """Names of the outputs in the card's code, those of a detector separated by commas."""
    if data.task == "detection":
        return "boxes, scores, labels"
    return "embedding" if data.task == "embedding" else "logits"


def preparation_code(preparation: Preparation) -> tuple[str, str]:
    """A function that reads a picture, and the line that calls it."""
    channels, *_, height, width = preparation.shape
    if channels not in (1, 3):  # no picture
        return "", 'images = np.load("images.npy")  # (B, C, H, W), bytes'
    ratio, sizes = preparation.resize_ratio, {"height": height, "width": width}
    resize = _RESIZE[preparation.fit].format(
        **sizes,
        ground=(GRAY,) * 3,
        ratio="" if ratio == 1 else f"{ratio!r} * ",
        unless_equal="" if ratio == 1 else f" if image.size != ({width}, {height}) else 1",
    )
    gray = '.convert("L")' if channels == 1 else ""
    prepare = _PREPARE.format(**sizes, read=_READ, channels=channels, resize=resize, gray=gray)
    if clip := preparation.clip:
        return prepare + _CLIP.format(span=clip.span, stride=clip.stride), _CLIPS
    return prepare, _IMAGES


def build_code(model: str, task: str, classes: int, channels: int) -> str:
    """Python code that builds a recipe's network."""
    family, _, name = model.partition("/")
    if family == "timm" and MARK not in model:
        call = f"timm.create_model({name!r}, num_classes={classes}, in_chans={channels})"
        return f"import timm\n\nnetwork = {call}"
    dense = family == "torchvision" and task != "classification"
    if MARK in model or family in _OWN_FAMILIES or dense:
        call = f"build({model!r}, num_classes={classes}, in_channels={channels})"
        return f"from selfdistill.models import build\n\nnetwork = {call}"
    if family == "torchvision":
        call = f"torchvision.models.get_model({name!r}, num_classes={classes})"
        return f"import torchvision\n\nnetwork = {call}"
    if "/" in model:  # of a user's own
        call = f"build({model!r}, num_classes={classes}, in_channels={channels})"
        register = "# first import the module that registers the network\n"
        return f"{register}from selfdistill.models import build\n\nnetwork = {call}"
    return f"network = {model}(...)"


def purpose_sentence(data: ImageData) -> str:
    """One sentence on what the network does."""
    classes = f"{len(data.classes)} class{'es' * (len(data.classes) > 1)}"
    if data.task == "detection":
        return f"It finds objects of {classes} in images."
    if data.task == "embedding":
        return (
            f"It gives an embedding of {len(data.classes)} numbers an image, as its teacher does."
        )
    inputs = "pixels" if data.task == "segmentation" else input_noun(data)
    return f"It tells {classes} of {inputs} apart."


def input_noun(data: ImageData) -> str:
    """What the network takes, in the plural."""
    return "clips" if len(data.train.shape) == 4 else "images"


def resize_sentence(data: ImageData) -> str:
    """One sentence on how an image is brought to the network's input size."""
    preparation = preparation_of(data)
    height, width = preparation.shape[-2:]
    size = f"{height} × {width}"
    if preparation.fit == "letterbox":
        return (
            f"Shrink or enlarge a picture into {size} with its proportions kept, bilinearly, in "
            f"the middle of gray {GRAY}: boxes are in pixels of that frame."
        )
    if preparation.fit == "crop":
        ratio = preparation.resize_ratio
        larger = "" if ratio == 1 else f" {ratio:.3f} times"
        return (
            f"Resize a picture bilinearly, its proportions kept, until it covers{larger} {size}, "
            "and crop the middle."
        )
    return f"Resize a picture bilinearly to {size}, whatever its proportions."


def clip_sentence(data: ImageData) -> str:
    """One sentence on the frames of a video that are read; "" where there are none."""
    clip = preparation_of(data).clip
    if clip is None:
        return ""
    step = f", {clip.stride} apart," if clip.stride > 1 else ""
    return (
        f"A clip is {clip.frames} frames{step} from the middle of a video; a shorter one starts "
        "again behind its end. "
    )


def channels_sentence(data: ImageData) -> str:
    """One sentence on pictures of other channels than the network's; "" where there are none."""
    return {
        1: "Color pictures are converted to gray by their luma (ITU-R 601). ",
        3: "Gray pictures are repeated in the three channels. ",
    }.get(data.train.shape[0], "")


def output_sentences(data: ImageData, *, raw: bool = False) -> str:
    """Sentences on the network's outputs; raw ones are those of weights alone."""
    height, width = data.train.shape[-2:]
    classes = len(data.classes)
    if data.task == "classification":
        return f"The output is one logit a class, (B, {classes})."
    if data.task == "embedding":
        return (
            f"The output is an embedding, (B, {classes}), which stands for the teacher's pooled "
            "feature with mean 0 and deviation 1 in each number."
        )
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
        f"yours to choose; the code above takes {SCORE_THRESHOLD:g}."
    )
