"""The model card of an exported network, a Markdown page."""

import json
import re
import tomllib
from dataclasses import replace
from importlib.metadata import version
from typing import Any, NamedTuple

from ..core import METHODS
from ..data import ImageData
from ..records import split_name
from ..records.exit_scores import ExitScore
from ..tasks import task_family
from ..tasks.metric_names import shown_metric
from .dataset_license import dataset_license, hub_name
from .file_format import FileFormat
from .fuse_batchnorm import FusedNetwork
from .int8_export import Int8Comparison
from .usage_snippet import (
    build_code,
    channels_sentence,
    clip_sentence,
    input_noun,
    output_sentences,
    purpose_sentence,
    resize_sentence,
)
from .verify import ExportVerification

_MAX_CLASSES = 20  # named on the card; the file names all


class CardData(NamedTuple):
    """Contents of a model card.

    Attributes:
        recipe: of the run, as TOML.
        data: of the run, at the image size of the export.
        exit_score: of the exported predictor.
        student_score: of the full network.
        verification: of the file against the method.
        file_format: of the file.
        fused: result of the BatchNorm fusion; None if there was none.
        made_of: what a composite network consists of, a phrase; "" of others.
        int8: the file, if it is in int8, beside the one in float32.
    """

    recipe: str
    data: ImageData
    exit_score: ExitScore
    student_score: ExitScore
    verification: ExportVerification
    file_format: FileFormat
    fused: FusedNetwork | None
    made_of: str = ""
    int8: Int8Comparison | None = None


def card_recipe(card: str) -> str | None:
    """The recipe on a model card, as TOML; None of another page."""
    blocks: list[str] = re.findall(r"^```toml\n(.*?)^```", card, re.DOTALL | re.MULTILINE)
    return blocks[-1] if blocks else None


def model_card(card: CardData) -> str:
    """The page, with front matter in the format of the Hugging Face hub."""
    sections = [_front, _title, _use, _accuracy, _cost, _int8, _verification, _data, _recipe]
    recipe = tomllib.loads(card.recipe)
    family = task_family(card.data.task)  # texts go by the form of the labels
    card = card._replace(data=replace(card.data, task=family))
    texts = (section(card, recipe).strip() for section in sections)
    return "\n".join(f"{text}\n" for text in texts if text)


def _front(card: CardData, recipe: dict[str, Any]) -> str:
    tag, metric = _HUB[card.data.task]
    tag = "video-classification" if input_noun(card.data) == "clips" else tag
    dataset = hub_name(recipe["data"])
    datasets = f"\ndatasets: {json.dumps([dataset])}" if dataset else ""
    return f"""---
pipeline_tag: {tag}
library_name: {card.file_format.hub_library}
tags: {json.dumps([tag, "knowledge-distillation", recipe["method"]])}{datasets}
metrics: {json.dumps([metric])}
---"""


_HUB = {
    "classification": ("image-classification", "accuracy"),
    "segmentation": ("image-segmentation", "mean_iou"),
    "detection": ("object-detection", "map"),
    "embedding": ("image-feature-extraction", "cosine_similarity"),
}
"""{task: the hub's names of task and metric}."""


def _title(card: CardData, recipe: dict[str, Any]) -> str:
    name = card.exit_score.predictor
    full = name == card.student_score.predictor
    subject = "The whole network" if full else f"`{name}`, cut out of the network"
    subject += f" ({card.made_of})" if card.made_of else ""
    return f"""# {recipe["model"]} on {recipe["data"]}: {name}

{subject}, without anything that only served its training. {purpose_sentence(card.data)}"""


def _use(card: CardData, recipe: dict[str, Any]) -> str:
    noun = input_noun(card.data)
    shape = f"(B, {', '.join(map(str, card.data.train.shape))})"
    file_format = card.file_format
    sentences = clip_sentence(card.data) + resize_sentence(card.data)
    sentences += f" {channels_sentence(card.data)}"
    sentences += output_sentences(card.data, raw=not file_format.holds_graph)
    if notes := file_format.notes(card.data):
        sentences += f"\n\n{notes}"
    return f"""## Use

```python
{file_format.code(card.data, _network(card, recipe))}
```

{noun.capitalize()} are float32 of shape {shape} in 0 … 1, {file_format.input_scale};
{file_format.batch}.
{sentences}"""


def _network(card: CardData, recipe: dict[str, Any]) -> str:
    """Python code that builds the architecture of the weights."""
    if card.exit_score.predictor != card.student_score.predictor:
        return f"network = ...  # {recipe['model']}, or its first layers, and a head of your own"
    channels, classes = card.data.train.shape[0], len(card.data.classes)
    return build_code(recipe["model"], card.data.task, classes, channels)


def _accuracy(card: CardData, recipe: dict[str, Any]) -> str:
    rows = []
    for split in ("val", "test"):
        images = getattr(card.data, split)
        predictors = card.exit_score, card.student_score
        score, student = (getattr(predictor, f"{split}_score") for predictor in predictors)
        if score is not None and images:
            name = split_name(split)
            rows.append(f"| {name} | {len(images):,} | {score:.2%} | {student:.2%} |")
    metric = shown_metric(card.exit_score.metric)
    heading = f"## {metric.capitalize() if metric.islower() else metric}"
    if not rows:
        return f"{heading}\n\nNot known: the run held no {input_noun(card.data)} out."
    table = "\n".join(rows)
    return f"""{heading}

| part | {input_noun(card.data)} | this network | the whole network |
|---|---:|---:|---:|
{table}

One run, seed {recipe["seed"]}, evaluated after the last of {recipe["epochs"]} epochs\
{_simulated(recipe)}."""


def _simulated(recipe: dict[str, Any]) -> str:
    """That scores are those of a network in simulated int8, a clause, or ""."""
    if recipe.get("quantize", "off") == "off":
        return ""
    return ",\nwith int8 simulated in the layers, as in its training"


def _cost(card: CardData, recipe: dict[str, Any]) -> str:
    score, student = card.exit_score, card.student_score
    parameters, macs = score.parameters / student.parameters, score.macs / max(1, student.macs)
    sides = " × ".join(map(str, card.data.train.shape[1:]))
    return f"""## Cost

| | this network | of the whole network |
|---|---:|---:|
| parameters | {score.parameters:,} | {parameters:.1%} |
| multiply-adds, {sides} | {score.macs:,} | {macs:.1%} |"""


def _int8(card: CardData, recipe: dict[str, Any]) -> str:
    """The file in int8 beside that in float32."""
    if (int8 := card.int8) is None:
        return ""
    metric, batch = shown_metric(int8.metric), int8.batch_size
    noun = input_noun(card.data)
    images = f"{int8.images:,} {'test' if int8.split == 'test' else 'validation'} {noun}"
    times = f"{1000 * int8.float_seconds:.3g} ms | {1000 * int8.seconds:.3g} ms"
    quantized = int8.layers - len(int8.float_layers)
    in_float = ", ".join(f"`{name}`" for name in int8.float_layers)
    remainder = f"; in float32 stay {in_float}" if in_float else ""
    ranges = "The ranges of features are those of"
    if recipe.get("quantize", "off") != "off":
        ranges = "What layers read has the ranges of the training,\nother features have those of"
    return f"""## Int8

| | float32 | int8 | int8 ÷ float32 |
|---|---:|---:|---:|
| {metric}, {images} | {int8.float_score:.2%} | {int8.score:.2%} | |
| latency, {batch} {noun if batch > 1 else noun.removesuffix("s")} | {times} | {int8.ratio:.2f} |
| bytes | {int8.float_size:,} | {int8.size:,} | {int8.size / int8.float_size:.2f} |

Both files were run by onnxruntime {version("onnxruntime")}, timed in turns on {int8.machine}:
medians. On another processor the ratio is another; `selfdistill measure` measures the file there.
Quantized are {quantized} of {int8.layers} layers{remainder}. {ranges}
{int8.calibration_images:,} validation {noun}."""


def _verification(card: CardData, recipe: dict[str, Any]) -> str:
    verification, fused = card.verification, card.fused
    split = "validation" if verification.split == "val" else verification.split
    runtime = card.file_format.runtime
    runtime += f" {version(runtime)}" if runtime != "torch" else ""  # which the recipe names
    file = "The float32 file that this one was quantized from" if card.int8 else "The file"
    lines = [
        f"{file} was run by {runtime} on {verification.images:,} {split} "
        f"{input_noun(card.data)} beside the network as it was in training: "
        f"{verification.summary}. More would not be put down to rounding."
    ]
    score = card.int8.score if card.int8 else verification.score
    if score is not None:
        metric = shown_metric(card.exit_score.metric)
        lines.append(f"The file's own {metric}: {score:.2%}.")
    if fused and fused.num_fused + fused.num_remaining:
        exporter = f" to {exporter}" if (exporter := card.file_format.exporter) else ""
        lines.append(
            f"BatchNorm fused into convolutions: {fused.num_fused}; "
            f"left{exporter}: {fused.num_remaining}."
        )
    return "## Verified\n\n" + "\n".join(lines)


def _data(card: CardData, recipe: dict[str, Any]) -> str:
    names = card.data.classes
    remainder = ""
    if len(names) > _MAX_CLASSES:
        remainder = f", … ({len(names)} in all, which are in the file)"
    labels = f"Classes:\n{', '.join(names[:_MAX_CLASSES])}{remainder}."
    if card.data.task == "embedding":
        labels = (
            "No label was read: the\n"
            f"teacher was {recipe['teacher']}, whose license may bind this network, too."
        )
    return f"""## Data

`{recipe["data"]}`, {len(card.data.train):,} {input_noun(card.data)} to learn from. {labels}

License of the data: {dataset_license(recipe["data"])}."""


def _recipe(card: CardData, recipe: dict[str, Any]) -> str:
    provenance = "\n".join(
        f"- `{name}`: {METHODS[name].provenance}"
        for name in map(str.strip, recipe["method"].split("+"))
    )
    return f"""## Recipe

How sure it is that the method is its paper's:

{provenance}

Made by selfdistill {version("selfdistill")} with torch {version("torch")}.
`selfdistill train --recipe` takes this:

```toml
{card.recipe.strip()}
```"""
