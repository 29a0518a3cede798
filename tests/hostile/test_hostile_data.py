"""Data sets as an attacker would make them."""

import io
import json
import os
import struct
import zipfile
import zlib
from pathlib import Path

import numpy as np
import pytest
from attacked import BOMB, Bomb, assert_harmless, assert_refused
from PIL import Image

TINY = ("--model", "kept/tiny", "--method", "ce", "--epochs", 1, "--batch-size", 4, "--device",
        "cpu", "--num-workers", 0)  # fmt: skip
EPS = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n%%EndComments\n{} loop\n%%EOF\n"


def header(shape: str, descr: str = "'|u1'") -> bytes:
    text = f"{{'descr': {descr}, 'fortran_order': False, 'shape': {shape}, }}\n".encode()
    return b"\x93NUMPY\x01\0" + struct.pack("<H", len(text)) + text


def npz(members: dict[str, bytes], method: int = zipfile.ZIP_STORED) -> None:
    with zipfile.ZipFile("x.npz", "w", method) as archive:
        for name, content in members.items():
            archive.writestr(name, content)


def objects():
    np.savez("x.npz", train_images=np.array([Bomb()], object), train_labels=np.zeros(1, int))


NPZ = {
    "objects": objects,
    "a pickle": lambda: Path("x.npz").write_bytes(BOMB),
    "a pickle as a member": lambda: npz({"train_images.npy": BOMB, "train_labels.npy": BOMB}),
    "a huge shape": lambda: npz({"train_images.npy": header("(1099511627776, 9, 9)")}),
    "a negative shape": lambda: npz({"train_images.npy": header("(-1, 9, 9)")}),
    "code in the header": lambda: npz(
        {"train_images.npy": header("__import__('os').mkdir('canary')")}
    ),
    "parentheses": lambda: npz({"train_images.npy": header("(" * 9000)}),
    "a type with code": lambda: npz({"train_images.npy": header("(1,)", "'O' if 1 else 2")}),
    "a bomb": lambda: npz(
        {"train_images.npy": header("(268435456,)") + bytes(1 << 28)}, zipfile.ZIP_DEFLATED
    ),
    "paths outside": lambda: npz({"../../train_images.npy": header("(1, 2, 2)") + bytes(4)}),
    "one name twice": lambda: npz({"train_images.npy": b"", "train_images": b""}),
    "a pipe": lambda: os.mkfifo("x.npz"),
    "a device": lambda: os.symlink("/dev/zero", "x.npz"),
    "a hole": lambda: Path("x.npz").touch() or os.truncate("x.npz", 1 << 37),
}


@pytest.mark.parametrize("kind", NPZ)
@pytest.mark.filterwarnings("ignore")
def test_npz(kind):
    NPZ[kind]()
    assert_refused("train", *TINY, "--data", "npz:x.npz")


def png(width: int, height: int, data: bytes = b"") -> bytes:
    def chunk(kind: bytes, content: bytes) -> bytes:
        return (
            struct.pack(">I", len(content)) + kind + content
            + struct.pack(">I", zlib.crc32(kind + content))
        )  # fmt: skip

    size = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    parts = chunk(b"IHDR", size), chunk(b"IDAT", data or zlib.compress(b"")), chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + b"".join(parts)


def tiff_bomb() -> bytes:
    stream = io.BytesIO()
    Image.new("L", (9000, 9000)).save(stream, "TIFF", compression="tiff_adobe_deflate")
    return stream.getvalue()


IMAGES = {
    "PostScript": EPS,
    "a pickle": BOMB,
    "of two billion pixels": png(50_000, 50_000),
    "of no pixel": png(0, 0),
    "that ends early": png(9, 9),
    "a script": b'<svg xmlns="http://www.w3.org/2000/svg"><script>1</script></svg>',
    "a PDF": b"%PDF-1.4\n1 0 obj\n",
    "an icon": b"\0\0\1\0\1\0" + b"\xff" * 16,
}


def class_folders() -> None:
    draw = np.random.default_rng(0)
    for name in ("a", "b"):
        Path("d", name).mkdir(parents=True)
        for i in range(8):
            pixels = draw.integers(0, 256, (8, 8, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(f"d/{name}/{i}.png")


@pytest.mark.parametrize("kind", IMAGES)
def test_images(kind):
    class_folders()
    Path("d/a/0.png").write_bytes(IMAGES[kind])
    assert_refused("train", *TINY, "--data", "folder:d")


FOLDERS = {
    "a pipe": lambda: os.mkfifo("d/a/x.png"),
    "a device": lambda: os.symlink("/dev/zero", "d/a/x.png"),
    "a circle": lambda: os.symlink("x.png", "d/a/x.png"),
    "ancestors": lambda: [os.symlink("../..", f"d/a/{i}") for i in range(3)],
    "a picture with 128 MB behind it": lambda: Path("d/a/x.png").write_bytes(
        png(8, 8, zlib.compress(bytes(1 << 27)))
    ),
    "a name with a line": lambda: Path("d/a/\n<script>.png").write_bytes(png(8, 8)),
    "a name that is no UTF-8": lambda: Path(os.fsdecode(b"d/\xff")).mkdir(),
    "a picture of much larger size": lambda: Path("d/a/x.tif").write_bytes(tiff_bomb()),
}


@pytest.mark.parametrize("kind", FOLDERS)
def test_folders(kind):
    class_folders()
    FOLDERS[kind]()
    assert_harmless("train", *TINY, "--image-size", 8, "--data", "folder:d")


def coco(**changes) -> None:
    Path("d/train").mkdir(parents=True)
    Image.new("RGB", (16, 16)).save("d/train/0.png")
    Image.new("RGB", (16, 16)).save("outside.png")
    content = {
        "images": [{"id": 1, "file_name": "0.png", "width": 16, "height": 16}],
        "annotations": [{"image_id": 1, "category_id": 1, "bbox": [1, 1, 9, 9]}],
        "categories": [{"id": 1, "name": "a"}],
    }
    for key, value in changes.items():
        content[key][0].update(value)
    Path("d/train/_annotations.coco.json").write_text(json.dumps(content))


COCO = {
    "a path outside": {"images": {"file_name": "../../outside.png"}},
    "an absolute path": {"images": {"file_name": "/etc/passwd"}},
    "a long path": {"images": {"file_name": "a/" * 5000}},
    "a zero byte": {"images": {"file_name": "a\0.png"}},
    "a huge size": {"images": {"width": 1e300}},
    "a huge box": {"annotations": {"bbox": [0, 0, 1e300, 1e300]}},
    "no numbers": {"annotations": {"bbox": [float("nan")] * 4}},
    "a huge category": {"annotations": {"category_id": 10**30}},
    "an unknown image": {"annotations": {"image_id": -1}},
}
DETECT = ("train", "--task", "detection", "--model", "fpn/small", "--method", "ce", "--epochs", 1,
          "--batch-size", 1, "--device", "cpu", "--image-size", 32, "--data",
          "folder:d")  # fmt: skip


@pytest.mark.parametrize("kind", COCO)
def test_coco(kind):
    coco(**COCO[kind])
    assert_refused(*DETECT)


DOCUMENTS = {
    "d/train/_annotations.coco.json": [b"[" * 200_000, BOMB, b'{"images": ' + b"1" * 6000],
    "d/data.yaml": [
        b"names: !!python/object/apply:os.mkdir [canary]",
        b"a: &a [x, x]\n" + b"".join(
            b"%c: &%c [%s]\n" % (98 + i, 98 + i, b", ".join([b"*%c" % (97 + i)] * 9))
            for i in range(20)
        ) + b"names: *u\n",
        b"names: " + b"[" * 50_000,
    ],
    "d/labels/0.txt": [b"1" * 400 + b" 0 0 1 1", b"999999999999999 .5 .5 .1 .1", b"\xff\0"],
    "d/classes.txt": [b"\xff", b"a\0b", BOMB],
}  # fmt: skip


@pytest.mark.parametrize(
    ("name", "i"), [(n, i) for n, c in DOCUMENTS.items() for i in range(len(c))]
)
def test_documents_of_boxes(name, i):
    for folder in ("images", "labels", "train"):
        Path("d", folder).mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (16, 16)).save("d/images/0.png")
    Path("d/labels/0.txt").write_text("0 .5 .5 .2 .2\n")
    Path(name).write_bytes(DOCUMENTS[name][i])
    assert_refused(*DETECT)


ENTITIES = b"".join(b'<!ENTITY e%d "%s">' % (i, b"&e%d;" % (i - 1) * 10) for i in range(1, 12))
XML = {
    "an entity": b'<!DOCTYPE x [<!ENTITY a SYSTEM "file:///etc/passwd">]><annotation>&a;</annotation>',
    "entities of entities": b'<!DOCTYPE x [<!ENTITY e0 "a">' + ENTITIES
    + b"]><annotation><object><name>&e11;</name></object></annotation>",
    "nesting": b"<a>" * 200_000,
    "a size of 30 digits": b"<annotation><size><width>" + b"9" * 30 + b"</width><height>1</height>"
    b"</size></annotation>",
    "a pickle": BOMB,
}  # fmt: skip


@pytest.mark.parametrize("kind", XML)
def test_voc(kind):
    Path("d/JPEGImages").mkdir(parents=True)
    Path("d/Annotations").mkdir()
    Image.new("RGB", (16, 16)).save("d/JPEGImages/0.jpg")
    Path("d/Annotations/0.xml").write_bytes(XML[kind])
    assert_refused(*DETECT)


@pytest.mark.parametrize("kind", IMAGES)
def test_masks(kind):
    for folder in ("images", "masks"):
        Path("d", folder).mkdir(parents=True)
        for i in range(4):
            Image.new("L", (8, 8)).save(f"d/{folder}/{i}.png")
    Path("d/masks/0.png").write_bytes(IMAGES[kind])
    assert_refused("train", "--task", "segmentation", "--data", "folder:d", "--epochs", 1)
