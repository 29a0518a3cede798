"""The model card beside an exported network: a Markdown page that a person can act on."""

import json
import tomllib
from importlib.metadata import version
from typing import Any, NamedTuple

from ..core import METHODS
from ..data import ImageData
from ..records.exit_scores import ExitScore
from ..tasks.metric_names import shown_metric
from .dataset_license import dataset_license
from .fuse_batchnorm import FusedNetwork
from .usage_snippet import (
    built,
    code,
    fitted,
    output,
    purpose,
)
from .verify import ExportVerification

_SHOWN = 20  # names of classes; the rest is in the file


class CardData(NamedTuple):
    """What there is to say.

    Attributes:
        recipe: of the run, as TOML.
        data: that the run was trained on, at the size of the export.
        row: the exported predictor.
        student: the whole network.
        comparison: of the file with the method.
        format: of the file.
        file: its name.
        folded: what became of BatchNorm; None where it was left alone.
    """

    recipe: str
    data: ImageData
    row: ExitScore
    student: ExitScore
    comparison: ExportVerification
    format: str
    file: str
    folded: FusedNetwork | None


def model_card(facts: CardData) -> str:
    """The page, with front matter as the Hugging Face hub reads it."""
    parts = [_front, _title, _use, _accuracy, _cost, _verified, _data, _recipe]
    recipe = tomllib.loads(facts.recipe)
    return "\n".join(part(facts, recipe).strip() + "\n" for part in parts)


def _front(facts: CardData, recipe: dict[str, Any]) -> str:
    library = {"onnx": "onnx", "pt2": "pytorch", "safetensors": "pytorch"}[facts.format]
    tag, metric = _HUB[facts.data.task]
    return f"""---
pipeline_tag: {tag}
library_name: {library}
tags: {json.dumps([tag, "knowledge-distillation", recipe["method"]])}
metrics: {json.dumps([metric])}
---"""


_HUB = {
    "classification": ("image-classification", "accuracy"),
    "segmentation": ("image-segmentation", "mean_iou"),
    "detection": ("object-detection", "map"),
}
"""By task, the hub's words for it and for its metric."""


def _title(facts: CardData, recipe: dict[str, Any]) -> str:
    whole = facts.row.predictor == facts.student.predictor
    what = "The whole network" if whole else f"`{facts.row.predictor}`, cut out of the network"
    return f"""# {recipe["model"]} on {recipe["data"]}: {facts.row.predictor}

{what}, without anything that only served its training. {purpose(facts.data)}"""


def _use(facts: CardData, recipe: dict[str, Any]) -> str:
    channels, height, width = facts.data.train.shape
    shape = f"(B, {channels}, {height}, {width})"
    scale = "which the file brings to its own scale"
    if facts.format == "safetensors":
        scale = "normalized by `mean` and `std`, which stand in the file's header"
    lines = code(facts.format, facts.data.task, facts.file, _network(facts, recipe))
    return f"""## Use

```python
{lines}
```

Images are float32 of shape {shape} in 0 … 1, {scale}; B is free.
{fitted(facts.data)} {output(facts.format, facts.data)}"""


def _network(facts: CardData, recipe: dict[str, Any]) -> str:
    """The lines that make the architecture that the weights belong to."""
    if facts.row.predictor != facts.student.predictor:
        return f"network = ...  # {recipe['model']}, or its first layers, and a head of your own"
    channels, classes = facts.data.train.shape[0], len(facts.data.classes)
    return built(recipe["model"], facts.data.task, classes, channels)


def _accuracy(facts: CardData, recipe: dict[str, Any]) -> str:
    rows = []
    for part in ("val", "test"):
        images = getattr(facts.data, part)
        own, whole = (getattr(row, f"{part}_score") for row in (facts.row, facts.student))
        if own is not None and images:
            name = {"val": "validation", "test": "test"}[part]
            rows.append(f"| {name} | {len(images):,} | {own:.2%} | {whole:.2%} |")
    metric = shown_metric(facts.row.metric)
    heading = f"## {metric.capitalize() if metric.islower() else metric}"
    if not rows:
        return f"{heading}\n\nNot known: the run held no images out."
    table = "\n".join(rows)
    return f"""{heading}

| part | images | this network | the whole network |
|---|---:|---:|---:|
{table}

One run, seed {recipe["seed"]}, judged after the last of {recipe["epochs"]} epochs."""


def _cost(facts: CardData, recipe: dict[str, Any]) -> str:
    row, student = facts.row, facts.student
    parameters, macs = row.parameters / student.parameters, row.macs / max(1, student.macs)
    _, height, width = facts.data.train.shape
    return f"""## Cost

| | this network | of the whole network |
|---|---:|---:|
| parameters | {row.parameters:,} | {parameters:.1%} |
| multiply-adds, {height} × {width} | {row.macs:,} | {macs:.1%} |"""


def _verified(facts: CardData, recipe: dict[str, Any]) -> str:
    it, folded = facts.comparison, facts.folded
    images = {"test": "test images", "val": "validation images", "random": "random images"}
    judge = "onnxruntime " + version("onnxruntime") if facts.format == "onnx" else "torch"
    lines = [
        f"The file was run by {judge} on {it.images:,} {images[it.part]} beside the network as it "
        f"was in training: {it.told}. More would not be put down to rounding."
    ]
    if it.score is not None:
        lines.append(f"The file's own {shown_metric(facts.row.metric)}: {it.score:.2%}.")
    if folded and folded.gone + folded.left:
        rest = " to the ONNX exporter" if facts.format == "onnx" else ""
        lines.append(
            f"BatchNorm folded into convolutions: {folded.gone}; left{rest}: {folded.left}."
        )
    return "## Verified\n\n" + "\n".join(lines)


def _data(facts: CardData, recipe: dict[str, Any]) -> str:
    names = facts.data.classes
    more = f", … ({len(names)} in all, which are in the file)" if len(names) > _SHOWN else ""
    return f"""## Data

`{recipe["data"]}`, {len(facts.data.train):,} images to learn from. Classes:
{", ".join(names[:_SHOWN])}{more}.

License of the data: {dataset_license(recipe["data"])}."""


def _recipe(facts: CardData, recipe: dict[str, Any]) -> str:
    evidence = "\n".join(
        f"- `{name}`: {METHODS[name].provenance}"
        for name in (part.strip() for part in recipe["method"].split("+"))
    )
    return f"""## Recipe

How sure it is that the method is its paper's:

{evidence}

Made by selfdistill {version("selfdistill")} with torch {version("torch")}.
`selfdistill train --recipe` takes this:

```toml
{facts.recipe.strip()}
```"""
