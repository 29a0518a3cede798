"""Data and teacher of a run as files."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from selfdistill.core import ArtifactError
from selfdistill.records.training_data import (
    ExtraRecord,
    TeacherRecord,
    TrainingData,
    read_teacher,
    read_training_data,
)

texts, floats = st.text(max_size=9), st.floats(allow_nan=False, allow_infinity=False)
data_ = st.builds(
    TrainingData, texts, texts, st.lists(texts), *[st.lists(floats).map(tuple) for _ in range(2)]
)
teachers = st.builds(
    TeacherRecord,
    texts,
    texts,
    texts,
    st.dictionaries(texts, floats),
    st.dictionaries(
        texts, st.dictionaries(texts, st.tuples(st.integers(), st.integers(), st.integers()))
    ),
)


@given(data_)
def test_data_come_back(record):
    assert TrainingData.from_json(record.to_json()) == record


def test_extra_images_come_back():
    record = TrainingData("a", "b", ["c"], (0.5,), (1.0,), extra=ExtraRecord("npz:d", 3, "e"))
    assert TrainingData.from_json(record.to_json()) == record


@given(teachers)
def test_teachers_come_back(record):
    assert TeacherRecord.from_json(record.to_json()) == record


@pytest.mark.parametrize("text", [None, "{", "{}", "[]", "3", '{"classes": 3}'])
def test_data_that_cannot_be_read_are_named(tmp_path, text):
    if text is not None:
        (tmp_path / "data.json").write_text(text)
    with pytest.raises(ArtifactError, match=r"data\.json cannot be read: without it nobody knows"):
        read_training_data(tmp_path)


@pytest.mark.parametrize("text", ["{", "{}", "[]", "3", '{"taps": 3}'])
def test_a_teacher_that_cannot_be_read_is_named(tmp_path, text):
    (tmp_path / "teacher.json").write_text(text)
    with pytest.raises(ArtifactError, match=r"teacher\.json is no record of a teacher"):
        read_teacher(tmp_path)


def test_a_run_without_a_teacher(tmp_path):
    assert read_teacher(tmp_path) is None
