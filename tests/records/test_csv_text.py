"""Tables as text: what comes back, and what a spreadsheet would run."""

import csv
import io

import pytest
from hypothesis import given
from hypothesis import strategies as st

from selfdistill.core import ArtifactError, ResourceError
from selfdistill.records.csv_text import csv_rows, csv_text, read_record

DANGEROUS = ["=1+1", "+1+1", "-2+3", "@SUM(A1)", "\t=1", "=cmd|' /C calc'!A0", "'=1", "''+x"]
cells = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\r\n"), max_size=6)
cells |= st.sampled_from(DANGEROUS)


@pytest.mark.parametrize("text", DANGEROUS)
def test_no_cell_starts_as_a_formula(text):
    header, row = csv.reader(io.StringIO(csv_text([text, "b"], [["x", text]])))
    assert header[0] == row[1] == f"'{text}"


@pytest.mark.parametrize("cell", ["-1", "+2.5", "-1e-3", "-inf", -1, -0.25, 3])
def test_numbers_stay_numbers(cell):
    _, (value,) = csv.reader(io.StringIO(csv_text(["a"], [[cell]])))
    assert float(value) == float(cell)


@given(st.lists(cells, min_size=2, max_size=2), st.lists(st.lists(cells, min_size=2, max_size=2)))
def test_every_cell_comes_back(header, rows):
    assert csv_rows(csv_text(header, rows)) == (header, rows)


def test_what_may_not_be_read_is_no_damage(tmp_path, monkeypatch):
    (tmp_path / "table.csv").write_text("a\n1\n")

    def forbidden(*_, **__):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr("pathlib.Path.open", forbidden)
    with pytest.raises(ResourceError, match=r"table\.csv cannot be read: permission denied"):
        read_record(tmp_path / "table.csv", str, "table")


def test_nesting_without_end_is_damage(tmp_path):
    (tmp_path / "x.json").write_text("[" * 9)

    def parse(text):
        raise RecursionError

    with pytest.raises(ArtifactError, match="is no table"):
        read_record(tmp_path / "x.json", parse, "table")
