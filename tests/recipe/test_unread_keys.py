"""Keys that are set and have no effect are told of, and no others."""

import pytest

import selfdistill
from selfdistill.core import METHODS
from selfdistill.recipe.fields import Recipe
from selfdistill.recipe.schema import parse
from selfdistill.recipe.unread_keys import _READERS, unread_notes


@pytest.mark.parametrize(
    ("keys", "read"),
    [
        ({"randaugment_strength": 5}, {"auto_augment": "randaugment"}),
        ({"randaugment_operations": 3, "auto_augment": "trivial"}, {"auto_augment": "randaugment"}),
        ({"lr_gamma": 0.2}, {"lr_schedule": "step", "milestones": [1]}),
        ({"lr_end_ratio": 0.1, "lr_schedule": "constant"}, {"lr_schedule": "cosine"}),
        ({"ignore_index": 11}, {"task": "segmentation"}),
        ({"empty_images": "refuse", "task": "segmentation"}, {"task": "detection"}),
        ({"clip_frames": 8}, {"task": "clips"}),
        ({"teacher_taps": "layer1", "method": "kd", "teacher": "x"}, {"method": "at"}),
        ({"teacher_image_size": 64}, {"method": "kd", "teacher": "x"}),
        ({"teacher_taps": "a,b", "method": "muse+cskd"}, {"method": "muse+at", "teacher": "x"}),
        ({"teacher_model": "y", "method": "dml", "peers": ["x"]}, {"method": "at", "peers": []}),
        ({"teacher_taps": "a", "method": "kd+dist", "teacher": "x"}, {"method": "kd+crd"}),
    ],
)
def test_what_is_not_read(keys, read):
    (note,) = unread_notes(parse({"method": "ce", **keys}))
    assert note.startswith(f"{next(iter(keys))} is not read: ")
    assert unread_notes(parse({"method": "ce", **keys, **read})) == []


def test_nothing_is_said_of_defaults():
    for method in METHODS:
        teacher = {"teacher": "x"} if METHODS[method].kind == "offline" else {}
        extra = {"extra": "folder:x"} if METHODS[method].needs.unlabeled else {}
        assert unread_notes(parse({"method": method, **teacher, **extra})) == []


def test_keys_and_values_are_the_recipes():
    for readers in _READERS:
        for key in (*readers.keys, readers.by):
            assert key in Recipe.model_fields


def test_a_run_says_so(tmp_path):
    with pytest.warns(UserWarning, match="lr_gamma is not read: lr_schedule is cosine"):
        selfdistill.train(
            method="ce", model="cifar/resnet8", max_train_images=32, batch_size=16, epochs=1,
            lr_gamma=0.5, quiet=True, out=tmp_path / "run",
        )  # fmt: skip
