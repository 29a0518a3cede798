"""Run directories, recipes and studies as an attacker would make them."""

import hashlib
import json
import os
import shutil
from pathlib import Path

import pytest
from attacked import BOMB, assert_harmless, assert_refused
from safetensors.torch import load_file, save_file

USES = {
    "evaluate": ("evaluate", "run"),
    "resume": ("train", "--resume", "run"),
    "weights": ("train", "--model", "kept/tiny", "--epochs", 1, "--weights", "run"),
}
FILES = ("recipe.toml", "data.json", "environment.json", "exits.csv", "metrics.jsonl")
CONTENTS = {
    "a pickle": BOMB,
    "nesting": b"[" * 200_000,
    "a bomb of tables": b"[" + b"a." * 100_000 + b"a]",
    "zeros": bytes(1 << 20),
    "an entity": b'<!DOCTYPE x [<!ENTITY a SYSTEM "file:///etc/passwd">]><x>&a;</x>',
    "a long number": b'{"format": 1' + b"0" * 6000 + b"}",
}
KINDS = {
    "pipe": os.mkfifo,
    "device": lambda path: os.symlink("/dev/zero", path),
    "circle": lambda path: os.symlink(path, path),
    "hole": lambda path: Path(path).touch() or os.truncate(path, 1 << 37),
}


@pytest.mark.parametrize("content", CONTENTS)
@pytest.mark.parametrize("file", FILES)
def test_a_file_of_a_run_with_other_contents(run, file, content):
    (run / file).write_bytes(CONTENTS[content])
    assert_harmless(*USES["evaluate"])


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    "file", [FILES[0], *(pytest.param(f, marks=pytest.mark.slow) for f in FILES[1:])]
)
def test_a_file_of_a_run_that_is_none(run, file, kind):
    (run / file).unlink()
    KINDS[kind](run / file)
    assert_harmless(*USES["evaluate"])
    if kind != "circle":
        assert_harmless(*USES["resume"])


def reseal(checkpoint: Path) -> None:
    """Let the manifest agree with what is there."""
    names = [path for path in checkpoint.iterdir() if path.name != "manifest.json"]
    sums = {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in names}
    (checkpoint / "manifest.json").write_text(json.dumps(sums))


def pickled(checkpoint):
    (checkpoint / "model.safetensors").write_bytes(BOMB)
    reseal(checkpoint)


def pickled_state(checkpoint):
    (checkpoint / "state.json").write_bytes(BOMB)
    reseal(checkpoint)


def outside(checkpoint):
    sums = json.loads((checkpoint / "manifest.json").read_text())
    (checkpoint / "manifest.json").write_text(json.dumps({**sums, "../../../../dev/zero": "0"}))


def endless(checkpoint):
    (checkpoint / "optimizer.safetensors").unlink()
    (checkpoint / "optimizer.safetensors").symlink_to("/dev/zero")


def other_shapes(checkpoint):
    for name in ("method.safetensors", "ema.safetensors"):
        tensors = load_file(checkpoint / name)
        save_file({n: t.flatten().repeat(2) for n, t in tensors.items()}, checkpoint / name)
    reseal(checkpoint)


def no_numbers(checkpoint):
    for file in checkpoint.glob("*.safetensors"):
        save_file({n: t * float("nan") for n, t in load_file(file).items()}, file)
    reseal(checkpoint)


def nested_state(checkpoint):
    (checkpoint / "state.json").write_text('{"format":' + "[" * 200_000)
    reseal(checkpoint)


def huge_manifest(checkpoint):
    os.truncate(checkpoint / "manifest.json", 1 << 37)


def step_of_nine_digits(checkpoint):
    state = json.loads((checkpoint / "state.json").read_text())
    (checkpoint / "state.json").write_text(json.dumps({**state, "step": 10**30}))
    reseal(checkpoint)


ATTACKS = [pickled, pickled_state, outside, endless, other_shapes, no_numbers, nested_state,
           huge_manifest, step_of_nine_digits]  # fmt: skip


@pytest.mark.parametrize("attack", ATTACKS)
@pytest.mark.parametrize("use", ["evaluate", "resume"])
def test_checkpoints(run, attack, use):
    for checkpoint in (run / "checkpoints").glob("step-*"):
        attack(checkpoint)
    assert_refused(*USES[use])


def test_a_run_as_initial_weights(run):
    for checkpoint in (run / "checkpoints").glob("step-*"):
        pickled(checkpoint)
    assert_refused(*USES["weights"])


@pytest.mark.parametrize("name", ["checkpoints", "checkpoints/step-000090"])
def test_a_folder_that_leads_elsewhere(run, name):
    place = run / name
    if place.exists():
        shutil.rmtree(place)
    place.symlink_to("/proc/self")
    assert_harmless(*USES["evaluate"])


@pytest.mark.parametrize("content", CONTENTS)
def test_recipes(content):
    Path("r.toml").write_bytes(CONTENTS[content])
    assert_refused("train", "--recipe", "r.toml")


@pytest.mark.parametrize("kind", KINDS)
def test_recipes_that_are_no_files(kind):
    KINDS[kind]("r.toml")
    assert_refused("train", "--recipe", "r.toml")
    assert_refused("reproduce", "--table", "r.toml", "--list")


@pytest.mark.parametrize(
    "line",
    ['imports = ["{}"]', 'method = "__import__(\'os\').mkdir(\'canary\')"', 'model = "../../x/y"',
     'data = "folder:/proc"', 'data = "npz:/dev/zero"', 'weights = "/dev/zero"',
     'teacher = "/proc/self"', 'model = {a = 1}', "[options]\n__class__ = 1"],
)  # fmt: skip
def test_recipes_that_ask_for_what_is_not_theirs(line):
    Path("r.toml").write_text(line)
    assert_refused("train", "--recipe", "r.toml")
