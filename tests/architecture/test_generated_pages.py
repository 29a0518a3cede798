"""The pages that are made from the code are what the code says today."""

import runpy
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def made() -> dict[str, object]:
    place = str(ROOT / "scripts" / "pages")
    sys.path.insert(0, place)
    try:
        return runpy.run_path(f"{place}/__main__.py")
    finally:
        sys.path.remove(place)


def test_pages_are_up_to_date(made):
    for path, text in made["pages"]().items():
        shown = (ROOT / "docs" / path).read_text(encoding="utf-8")
        assert shown == text, f"docs/{path}: run scripts/pages"


def test_no_page_is_left_of_a_method_that_is_gone(made):
    assert not made["left_over"]()
