"""Tables of classes as files."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from selfdistill.core import ArtifactError
from selfdistill.records.class_tables import (
    ClassScores,
    ConfusionMatrix,
    read_class_scores,
    read_confusion,
)

names = st.text(st.characters(codec="utf-8", exclude_characters="\r\n\0"), min_size=1, max_size=9)
class_lists = st.lists(names, min_size=1, max_size=5, unique=True)


@settings(max_examples=40, deadline=None)
@given(st.data(), class_lists)
def test_a_confusion_matrix_comes_back(data, classes):
    size = len(classes) ** 2
    counts = data.draw(st.lists(st.integers(0, 10**9), min_size=size, max_size=size))
    matrix = ConfusionMatrix(classes, np.array(counts).reshape(len(classes), -1))
    again = ConfusionMatrix.from_csv(matrix.to_csv())
    assert list(again.classes) == classes
    np.testing.assert_array_equal(again.counts, matrix.counts)


@settings(max_examples=40, deadline=None)
@given(st.data(), class_lists)
def test_scores_of_classes_come_back(data, classes):
    def column(values):
        return data.draw(st.lists(values, min_size=len(classes), max_size=len(classes)))

    fractions = st.none() | st.floats(0, 1)
    scores = ClassScores(classes, {"iou": column(fractions), "pixels": column(st.integers(0))})
    assert ClassScores.from_csv(scores.to_csv()) == scores
    assert scores.is_count("pixels")


def test_what_is_nan_was_not_evaluated():
    columns = {"ap": torch.tensor([0.5, float("nan")]), "boxes": torch.tensor([3, 0])}
    scores = ClassScores.from_tensors(["a", "b"], columns)
    assert scores.columns == {"ap": [0.5, None], "boxes": [3, 0]}
    assert [scores.is_count(name) for name in columns] == [False, True]


@pytest.mark.parametrize("text", ["", "a,b\n1,2\n", "a,b\n1,2\n3,x\n", "a,b\n1,2\n3\n"])
def test_a_matrix_that_cannot_be_read_is_named(tmp_path, text):
    (tmp_path / "confusion.csv").write_text(text)
    with pytest.raises(ArtifactError, match=r"confusion\.csv is no confusion matrix"):
        read_confusion(tmp_path)


def test_what_a_task_does_not_have_is_none(tmp_path):
    assert read_confusion(tmp_path) is None
    assert read_class_scores(tmp_path) is None
