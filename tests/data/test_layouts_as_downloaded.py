"""Small copies of sets as they are downloaded: read as they are, or refused in one sentence."""

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from selfdistill.core import DataError
from selfdistill.data import load

NAMES = ["cat", "dog"]


def image(path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    draw = np.random.default_rng(list(path.name.encode()))
    Image.fromarray(draw.integers(0, 256, (32, 48, 3), dtype=np.uint8)).save(path)


def write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


def class_folders(path: Path, **counts: int) -> None:
    for part, count in counts.items():
        for name in NAMES:
            for i in range(count):
                image(path / part / name / f"{part}-{i}.jpg")


def coco_file(file: Path, images: list[str], **entry) -> None:
    content = {
        "info": {"year": "2024", "description": ""},
        "licenses": [],
        "categories": [{"id": i, "name": n, "supercategory": ""} for i, n in enumerate(NAMES, 1)],
        "images": [
            {"id": i, "width": 48, "height": 32, "file_name": name, **entry}
            for i, name in enumerate(images)
        ],
        "annotations": [
            {"id": i, "image_id": i, "category_id": 1 + i % 2, "bbox": [4, 5, 20.5, 12],
             "area": 246, "segmentation": [], "iscrowd": 0, "attributes": {}}
            for i in range(len(images))
        ],
    }  # fmt: skip
    write(file, json.dumps(content))


def xml(file: Path, name: str, folder: str = "") -> None:
    write(
        file,
        f"<annotation><folder>{folder}</folder><filename>{file.stem}.jpg</filename>"
        f"<path>C:\\data\\{file.stem}.jpg</path><source><database>Unknown</database></source>"
        "<size><width>48</width><height>32</height><depth>3</depth></size>"
        f"<segmented>0</segmented><object><name>{name}</name><pose>Unspecified</pose>"
        "<truncated>0</truncated><difficult>0</difficult><bndbox><xmin>5</xmin><ymin>6</ymin>"
        "<xmax>24</xmax><ymax>17</ymax></bndbox></object></annotation>",
    )


ROBOFLOW = {"train": 6, "valid": 2, "test": 2}


def roboflow_readme(path: Path) -> None:
    for name in ("README.dataset.txt", "README.roboflow.txt"):
        write(path / name, "exported\n")


def kaggle(path: Path) -> None:
    class_folders(path, Training=6, Testing=2)


def kaggle_sets(path: Path) -> None:
    class_folders(path, training_set=6, test_set=2)
    write(path / "training_set" / "_DS_Store", "")


def roboflow_folders(path: Path) -> None:
    class_folders(path, **ROBOFLOW)
    roboflow_readme(path)


def roboflow_coco(path: Path) -> None:
    for part, count in ROBOFLOW.items():
        names = [f"{part}{i}_jpg.rf.0a1b.jpg" for i in range(count)]
        for name in names:
            image(path / part / name)
        coco_file(path / part / "_annotations.coco.json", names)
    roboflow_readme(path)


def roboflow_yolo(path: Path) -> None:
    for part, count in ROBOFLOW.items():
        for i in range(count):
            image(path / part / "images" / f"{part}{i}_jpg.rf.0a1b.jpg")
            text = f"{i % 2} 0.5 0.5 0.25 0.5\n{i % 2} 0.1 0.1 0.4 0.1 0.4 0.6 0.1 0.6"
            write(path / part / "labels" / f"{part}{i}_jpg.rf.0a1b.txt", text)
    write(path / "data.yaml", "train: ../train/images\nval: ../valid/images\nnc: 2\n"
          "names: ['cat', 'dog']\nroboflow:\n  workspace: x\n")  # fmt: skip
    roboflow_readme(path)


def roboflow_voc(path: Path) -> None:
    for part, count in ROBOFLOW.items():
        for i in range(count):
            image(path / part / f"{part}{i}_jpg.rf.0a1b.jpg")
            xml(path / part / f"{part}{i}_jpg.rf.0a1b.xml", NAMES[i % 2])
    roboflow_readme(path)


def labelimg_flat(path: Path) -> None:
    for i in range(10):
        image(path / f"photo {i}.jpg")
        xml(path / f"photo {i}.xml", NAMES[i % 2], "photos")


def labelimg_two_folders(path: Path) -> None:
    for i in range(10):
        image(path / "images" / f"raccoon-{i}.jpg")
        xml(path / "annotations" / f"raccoon-{i}.xml", NAMES[i % 2], "images")
    write(path / "data.csv", "filename,class\n")


def labelimg_yolo(path: Path) -> None:
    for i in range(10):
        image(path / f"{i}.jpg")
        write(path / f"{i}.txt", f"{i % 2} 0.5 0.5 0.25 0.5\n")
    write(path / "classes.txt", "cat\ndog\n")


def cvat_coco(path: Path) -> None:
    names = [f"frame_{i:06}.PNG" for i in range(10)]
    for name in names:
        image(path / "images" / name)
    more = {"license": 0, "flickr_url": "", "coco_url": "", "date_captured": 0}
    coco_file(path / "annotations" / "instances_default.json", names, **more)


def label_studio_yolo(path: Path) -> None:
    for i in range(10):
        image(path / "images" / f"8d1c-{i}.jpg")
        write(path / "labels" / f"8d1c-{i}.txt", f"{i % 2} 0.5 0.5 0.25 0.5")
    write(path / "classes.txt", "cat\ndog\n")
    write(path / "notes.json", "{}")


def vocdevkit(path: Path) -> None:
    for i in range(12):
        image(path / "JPEGImages" / f"2007_{i:06}.jpg")
        xml(path / "Annotations" / f"2007_{i:06}.xml", NAMES[i % 2], "VOC2007")
    main = path / "ImageSets" / "Main"
    for name, span in (("train", (0, 6)), ("val", (6, 8)), ("trainval", (0, 8)), ("test", (8, 10))):
        stems = [f"2007_{i:06}" for i in range(*span)]
        write(main / f"{name}.txt", "\n".join(stems) + "\n")
        write(main / f"cat_{name}.txt", "".join(f"{stem}  1\n" for stem in stems))
    write(path / "ImageSets" / "Layout" / "train.txt", "2007_000000\n")
    image(path / "SegmentationClass" / "2007_000000.png")


def coco2017(path: Path) -> None:
    for part, count in (("train2017", 6), ("val2017", 2)):
        names = [f"{part[:3]}{i:012}.jpg" for i in range(count)]
        for name in names:
            image(path / part / name)
        coco_file(path / "annotations" / f"instances_{part}.json", names)
        write(path / "annotations" / f"captions_{part}.json", "{}")
        write(path / "annotations" / f"person_keypoints_{part}.json", "{}")


def imagenet(path: Path) -> None:
    class_folders(path, train=6, val=2)
    for i in range(3):
        image(path / "test" / f"ILSVRC2012_test_{i}.JPEG")


def hugging_face_folders(path: Path) -> None:
    class_folders(path, train=6, validation=2, test=2)
    write(path / "README.md", "---\ntask_categories: []\n---\n")


READ = {
    kaggle: ("classification", (10, 2, 4)),
    kaggle_sets: ("classification", (10, 2, 4)),
    roboflow_folders: ("classification", (12, 4, 4)),
    imagenet: ("classification", (10, 2, 4)),
    hugging_face_folders: ("classification", (12, 4, 4)),
    roboflow_coco: ("detection", (6, 2, 2)),
    roboflow_yolo: ("detection", (6, 2, 2)),
    roboflow_voc: ("detection", (6, 2, 2)),
    labelimg_flat: ("detection", (8, 2, 0)),
    labelimg_two_folders: ("detection", (8, 2, 0)),
    labelimg_yolo: ("detection", (8, 2, 0)),
    cvat_coco: ("detection", (8, 2, 0)),
    label_studio_yolo: ("detection", (8, 2, 0)),
    vocdevkit: ("detection", (6, 2, 2)),
    coco2017: ("detection", (5, 1, 2)),
}


@pytest.mark.parametrize("layout", READ, ids=lambda layout: layout.__name__)
def test_read(layout, tmp_path):
    layout(tmp_path)
    task, sizes = READ[layout]
    data = load(f"folder:{tmp_path}", task=task, val_fraction=0.2)
    parts = (data.train, data.val, data.test)
    assert tuple(0 if part is None else len(part) for part in parts) == sizes
    assert data.classes == NAMES
    if task == "detection":
        with pytest.raises(DataError, match="--task detection"):
            load(f"folder:{tmp_path}")


def open_images(path: Path) -> None:
    for part in ("train", "validation"):
        image(path / part / "0a1b.jpg")
        write(path / f"{part}-annotations-bbox.csv", "ImageID,LabelName,XMin\n")


def dogs_and_cats(path: Path) -> None:
    for i in range(3):
        image(path / "train" / f"cat.{i}.jpg")
        image(path / "test1" / f"{i}.jpg")
    write(path / "train" / "labels.csv", "id,label\n")


def hugging_face_metadata(path: Path) -> None:
    for i in range(3):
        image(path / "train" / f"{i}.png")
    write(path / "train" / "metadata.jsonl", '{"file_name": "0.png", "label": 0}\n')


def hugging_face_metadata_flat(path: Path) -> None:
    image(path / "0.png")
    write(path / "metadata.csv", "file_name,label\n0.png,0\n")


def intel_scenes(path: Path) -> None:
    for part in ("seg_train", "seg_test"):
        class_folders(path / part, **{part: 2})


def plant_village(path: Path) -> None:
    class_folders(path / "PlantVillage", **{"": 2})


def camvid(path: Path) -> None:
    for part in ("train", "trainannot", "test", "testannot"):
        image(path / part / "0001.png")


def cityscapes(path: Path) -> None:
    image(path / "leftImg8bit" / "train" / "aachen" / "aachen_0.png")
    image(path / "gtFine" / "train" / "aachen" / "aachen_0.png")


REFUSED = {
    open_images: ("classification", "no picture in class folders below .*train"),
    dogs_and_cats: ("classification", r"csv:.*train/labels\.csv reads classes"),
    hugging_face_metadata: ("classification", r"csv:.*metadata\.jsonl reads classes"),
    hugging_face_metadata_flat: ("classification", r"csv:.*metadata\.csv reads classes"),
    intel_scenes: ("classification", "seg_t.* looks like a part of the data"),
    plant_village: ("classification", "did you mean folder:.*PlantVillage"),
    camvid: ("segmentation", "there is no folder .*images; segmentation needs images and masks"),
    cityscapes: ("segmentation", "there is no folder .*images; segmentation needs"),
}


@pytest.mark.parametrize("layout", REFUSED, ids=lambda layout: layout.__name__)
def test_refused_in_a_sentence(layout, tmp_path):
    layout(tmp_path)
    task, sentence = REFUSED[layout]
    with pytest.raises(DataError, match=sentence) as error:
        load(f"folder:{tmp_path}", task=task)
    assert "\n" not in str(error.value)
    if task == "classification":
        with pytest.raises(DataError, match="none of the layouts for boxes"):
            load(f"folder:{tmp_path}", task="detection")


def test_open_images_for_boxes(tmp_path):
    open_images(tmp_path)
    with pytest.raises(DataError, match=r"labels in train-annotations-bbox\.csv are not read"):
        load(f"folder:{tmp_path}", task="detection")
