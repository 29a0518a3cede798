"""What a data set that is made in Python is held to before anything is trained."""

import numpy as np
import pytest
import torch

import selfdistill
from selfdistill.core import DataError
from selfdistill.data import ImageData, InMemoryImages

PIXELS = torch.randint(256, (12, 3, 8, 8), generator=torch.Generator().manual_seed(0)).byte()
LABELS = torch.arange(12) % 3


def data(images=PIXELS, labels=LABELS, mean=(0.5,) * 3, std=(0.3,) * 3, **more):
    part = InMemoryImages(images, labels)
    keys = {"classes": list("abc"), **more}
    sides = {"crop_padding": 0, "flip": False, "resized_crop": False}
    return ImageData("made", part, None, part, mean=mean, std=std, **sides, **keys)


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"images": PIXELS / 255}, r"uint8, 0 … 255, and these are .*float32; convert them"),
        ({"images": PIXELS.int()}, "of torch.int32"),
        ({"images": PIXELS[:, 0]}, r"\(N, C, H, W\) of uint8.*\(12, 8, 8\)"),
        ({"labels": LABELS[:11]}, "12 images have 11 targets"),
        ({"labels": torch.zeros(13).long()}, "12 images have 13 targets"),
        ({"labels": LABELS.float()}, r"labels are \(N,\) integers.*float32"),
        ({"labels": LABELS[:, None]}, r"\(12, 1\) of torch.int64"),
        ({"labels": LABELS + 1}, "labels of the train images are 1 … 3, and 3 classes .* 0 … 2"),
        ({"labels": LABELS - 1}, "are -1 … 1"),
        ({"classes": ["all"]}, "one class.*two are the least"),
        ({"mean": (127.0,) * 3}, r"mean \(127.0, .* divide mean and std by 255"),
        ({"std": (58.0,) * 3}, r"std \(58.0, .* divide mean and std by 255"),
        ({"mean": (float("nan"),) * 3}, "is not of pixels in 0 … 1"),
        ({"std": (0.3, 0.0, 0.3)}, "divides by 0; give 1 for a constant channel"),
    ],
)
def test_refused_in_a_sentence_before_there_is_a_run(changes, sentence):
    with pytest.raises(DataError, match=sentence):
        data(**changes)


@pytest.mark.parametrize("kind", [torch.uint8, torch.int16, torch.int32, torch.int64])
def test_labels_of_any_integers(kind, tmp_path):
    made = data(labels=LABELS.to(kind))
    assert made.train.labels.dtype == torch.int64
    assert made.train.targets.counts(3).tolist() == [4, 4, 4]
    keys = {"model": "cifar/resnet8", "method": "cskd", "epochs": 1, "batch_size": 4}
    run = selfdistill.train(data=made, out=tmp_path / "run", **keys)
    assert run.exits[0].test_score is not None


def test_labels_of_numpy():
    assert data(labels=torch.from_numpy(np.arange(12, dtype=np.uint8) % 3)).train.labels[1] == 1


def test_a_task_without_classes_has_no_labels_to_check():
    assert data(labels=LABELS + 7, task="embedding").task == "embedding"
