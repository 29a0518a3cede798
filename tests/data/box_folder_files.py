"""The same few pictures with boxes in all layouts."""

import json
from pathlib import Path

import numpy as np
from PIL import Image

NAMES = ["ant", "bee", "cat"]
COUNTS = {"train": 6, "val": 2, "test": 3}
Objects = list[tuple[int, int, int, int, int]]
"""Class and corners of each, in whole pixels."""


def truth() -> dict[str, list[tuple[str, tuple[int, int], Objects]]]:
    """By part: name, (height, width) and objects of each picture; the last one has none."""
    draw = np.random.default_rng(0)
    built: dict[str, list[tuple[str, tuple[int, int], Objects]]] = {}
    for part, count in COUNTS.items():
        for i in range(count):
            height, width = (48, 64) if i % 2 else (56, 40)
            objects = []
            for _ in range(0 if i == count - 1 else 1 + i):
                x, y = int(draw.integers(0, width - 12)), int(draw.integers(0, height - 12))
                wide, tall = map(int, draw.integers(5, 12, 2))
                objects.append((int(draw.integers(0, 3)), x, y, x + wide, y + tall))
            built.setdefault(part, []).append((f"{part}{i}", (height, width), objects))
    built["train"][0][2][:] = [(0, 0, 0, 40, 56), (1, 5, 5, 15, 15), (2, 20, 9, 30, 29)]
    return built


def picture(name: str, size: tuple[int, int]) -> Image.Image:
    draw = np.random.default_rng(list(name.encode()))
    return Image.fromarray(draw.integers(0, 256, (*size, 3), dtype=np.uint8))


def coco(directory: Path) -> Path:
    """As COCO ships it: years in the names, categories with gaps between their ids."""
    ids = [3, 7, 90]
    (directory / "annotations").mkdir(parents=True)
    for part, entries in truth().items():
        folder = directory / f"{part}2017"
        folder.mkdir()
        images, annotations = [], []
        for number, (name, size, objects) in enumerate(entries):
            picture(name, size).save(folder / f"{name}.png")
            shape = {"height": size[0], "width": size[1]}
            images.append({"id": 100 + number, "file_name": f"{name}.png", **shape})
            annotations += [
                {
                    "id": 1 + len(annotations) + i,
                    "image_id": 100 + number,
                    "category_id": ids[label],
                    "bbox": [x1, y1, x2 - x1, y2 - y1],
                    "area": (x2 - x1) * (y2 - y1),
                    "iscrowd": 0,
                }
                for i, (label, x1, y1, x2, y2) in enumerate(objects)
            ]
        categories = [{"id": i, "name": n} for i, n in zip(ids, NAMES, strict=True)]
        content = {"images": images, "annotations": annotations, "categories": categories[::-1]}
        file = directory / "annotations" / f"instances_{part}2017.json"
        file.write_text(json.dumps(content))
    return directory


def voc(directory: Path) -> Path:
    """With lists of each part; pixels count from 1 and the last one belongs to the box."""
    for folder in ("Annotations", "JPEGImages", "ImageSets/Main"):
        (directory / folder).mkdir(parents=True)
    for part, entries in truth().items():
        lines = [name for name, _, _ in entries]
        (directory / "ImageSets" / "Main" / f"{part}.txt").write_text("\n".join(lines))
        for name, size, objects in entries:
            picture(name, size).save(directory / "JPEGImages" / f"{name}.png")
            (directory / "Annotations" / f"{name}.xml").write_text(page(size, objects))
    return directory


def page(size: tuple[int, int], objects: Objects) -> str:
    inner = "".join(
        f"<object><name>{NAMES[label]}</name><difficult>0</difficult><bndbox><xmin>{x1 + 1}</xmin>"
        f"<ymin>{y1 + 1}</ymin><xmax>{x2}</xmax><ymax>{y2}</ymax></bndbox></object>"
        for label, x1, y1, x2, y2 in objects
    )
    shape = f"<size><width>{size[1]}</width><height>{size[0]}</height><depth>3</depth></size>"
    return f"<annotation>{shape}{inner}</annotation>"


def yolo(directory: Path) -> Path:
    """With data.yaml, images/PART and labels/PART."""
    for part, entries in truth().items():
        for folder in ("images", "labels"):
            (directory / folder / part).mkdir(parents=True)
        for name, size, objects in entries:
            picture(name, size).save(directory / "images" / part / f"{name}.png")
            lines = [line(size, *item) for item in objects]
            (directory / "labels" / part / f"{name}.txt").write_text("\n".join(lines))
    (directory / "data.yaml").write_text("names:\n  0: ant\n  1: bee\n  2: cat\n")
    return directory


def line(size: tuple[int, int], label: int, x1: int, y1: int, x2: int, y2: int) -> str:
    height, width = size
    fractions = (x1 + x2) / 2 / width, (y1 + y2) / 2 / height, (x2 - x1) / width, (y2 - y1) / height
    return f"{label} " + " ".join(f"{x:.6f}" for x in fractions)


LAYOUTS = {"COCO": coco, "Pascal VOC": voc, "YOLO": yolo}
