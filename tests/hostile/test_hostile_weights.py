"""Files of weights as an attacker would make them."""

import json
import os
import pickle
import struct
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from attacked import BOMB, Bomb, assert_refused
from safetensors.torch import save_file

TRAIN = ("train", "--model", "kept/tiny", "--epochs", 1, "--device", "cpu", "--weights")
SHAPE = {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}


def state():
    return {"0.0.weight": torch.ones(4, 1, 3, 3)}


def safetensors(header: object, data: bytes = b"") -> bytes:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + data


SAFETENSORS = {
    "nothing": b"",
    "a pickle": BOMB,
    "a header of 2^63 bytes": struct.pack("<Q", 1 << 63) + b"{}",
    "a header longer than the file": struct.pack("<Q", 1 << 26) + b"{}",
    "a header that is no JSON": safetensors(b"{" * 50),
    "a deeply nested header": safetensors(b'{"a":' * 100_000),
    "a header of 30 MB of names": safetensors(
        b"{" + b",".join(b'"%d":{}' % i for i in range(2_000_000)) + b"}"
    ),
    "a huge shape": safetensors({"w": {**SHAPE, "shape": [1 << 40, 1 << 40]}}, b"\0" * 4),
    "an empty huge shape": safetensors(
        {"w": {"dtype": "F32", "shape": [0, 1 << 62], "data_offsets": [0, 0]}}
    ),
    "a negative shape": safetensors({"w": {**SHAPE, "shape": [-1]}}, b"\0" * 4),
    "tensors that overlap": safetensors({"a": SHAPE, "b": SHAPE}, b"\0" * 4),
    "offsets outside": safetensors({"w": {**SHAPE, "data_offsets": [0, 1 << 50]}}),
    "an unknown type": safetensors({"w": {**SHAPE, "dtype": "PICKLE"}}, b"\0" * 4),
    "one name twice": safetensors(
        b'{"a":%s,"a":%s}' % ((json.dumps(SHAPE).encode(),) * 2), b"0000"
    ),
    "metadata that is a list": safetensors({"__metadata__": [1]}),
    "a name with a path": safetensors({"../../w": SHAPE}, b"\0" * 4),
}


@pytest.mark.parametrize("kind", SAFETENSORS)
def test_safetensors(kind):
    Path("w.safetensors").write_bytes(SAFETENSORS[kind])
    assert_refused(*TRAIN, "w.safetensors")


def not_finite():
    return {"0.0.weight": torch.full((4, 1, 3, 3), float("nan"))}


def complete(value: float) -> dict[str, torch.Tensor]:
    from selfdistill.models import build

    network = build("kept/tiny", num_classes=10, in_channels=1)
    return {name: torch.full_like(tensor, value) for name, tensor in network.state_dict().items()}


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_numbers_that_are_not_finite(value):
    tensors = complete(1.0)
    tensors["1.0.weight"] *= value
    save_file(tensors, "w.safetensors")
    assert "1.0.weight" in assert_refused(*TRAIN, "w.safetensors")


@pytest.mark.parametrize("dtype", [torch.int8, torch.bool, torch.complex64, torch.int64])
def test_numbers_of_another_kind(dtype):
    tensors = complete(1.0)
    tensors["1.0.weight"] = tensors["1.0.weight"].to(dtype)
    save_file(tensors, "w.safetensors")
    assert "1.0.weight" in assert_refused(*TRAIN, "w.safetensors")


FILES = {
    "pipe": os.mkfifo,
    "folder": os.mkdir,
    "device": lambda path: os.symlink("/dev/zero", path),
    "circle": lambda path: os.symlink(path, path),
    "nowhere": lambda path: os.symlink("/none/here", path),
    "memory": lambda path: os.symlink("/proc/self/mem", path),
    "hole": lambda path: Path(path).touch() or os.truncate(path, 1 << 36),
}


@pytest.mark.parametrize("kind", FILES)
@pytest.mark.parametrize("ending", [".safetensors", pytest.param(".pt", marks=pytest.mark.slow)])
def test_what_is_no_file_of_weights(kind, ending):
    FILES[kind](f"w{ending}")
    assert_refused(*TRAIN, f"w{ending}")


def zipped(name: str, members: dict[str, bytes], method: int = zipfile.ZIP_STORED) -> None:
    with zipfile.ZipFile(name, "w", method) as archive:
        for member, content in members.items():
            archive.writestr(member, content)


class Deep:
    """A pickle of a list in a list in …"""

    content = b"\x80\x04" + b"]" * 200_000 + b"a" * 199_999 + b"."


PICKLED = {
    "a pickle": lambda path: Path(path).write_bytes(BOMB),
    "a pickle of protocol 0": lambda path: Path(path).write_bytes(pickle.dumps(Bomb(), 0)),
    "code in a tensor's place": lambda path: torch.save({"0.0.weight": Bomb()}, path),
    "code beside the weights": lambda path: torch.save({"model": state(), "x": Bomb()}, path),
    "a whole module": lambda path: torch.save(torch.nn.Linear(2, 2), path),
    "a TorchScript archive": lambda path: torch.jit.script(torch.nn.Linear(2, 2)).save(path),
    "64 GB asked for": lambda path: Path(path).write_bytes(
        b"\x80\x04\x8d" + (1 << 36).to_bytes(8, "little")
    ),
    "deep nesting": lambda path: Path(path).write_bytes(Deep.content),
    "a zip bomb": lambda path: zipped(
        path, {"a/data.pkl": bytes(1 << 28), "a/version": b"3"}, zipfile.ZIP_DEFLATED
    ),
    "members outside": lambda path: zipped(path, {"../../data.pkl": BOMB, "a/data.pkl": BOMB}),
    "sparse": lambda path: torch.save({"0.0.weight": torch.ones(4, 9).to_sparse()}, path),
    "meta": lambda path: torch.save({"0.0.weight": torch.empty(1 << 40, device="meta")}, path),
    "quantized": lambda path: torch.save(
        {"0.0.weight": torch.quantize_per_tensor(torch.ones(4, 9), 0.1, 0, torch.qint8)}, path
    ),
    "a view of 4 TB": lambda path: torch.save({"0.0.weight": torch.ones(1).expand(1 << 40)}, path),
    "no state dict": lambda path: torch.save([1, 2], path),
    "names that are numbers": lambda path: torch.save({1: torch.ones(2)}, path),
    "an npz of objects": lambda path: np.savez(open(path, "wb"), a=np.array([Bomb()])),  # noqa: SIM115
}
QUICK = ("code beside the weights",)


@pytest.mark.parametrize(
    "kind", [k if k in QUICK else pytest.param(k, marks=pytest.mark.slow) for k in PICKLED]
)
@pytest.mark.filterwarnings("ignore")
def test_pickled(kind):
    PICKLED[kind]("w.pt")
    assert_refused(*TRAIN, "w.pt")


@pytest.mark.slow
@pytest.mark.parametrize("ending", [".pth", ".ckpt", ".bin", ".tar"])
def test_code_under_every_ending(ending):
    torch.save({"model": state(), "x": Bomb()}, f"w{ending}")
    assert_refused(*TRAIN, f"w{ending}")
    assert_refused("train", "--method", "kd", "--epochs", 1, "--teacher", f"w{ending}")
