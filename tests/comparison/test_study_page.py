"""The page of a study: whole, alone, and true to its figures."""

import re
import xml.etree.ElementTree as ET
from dataclasses import replace
from html.parser import HTMLParser

import pytest

from selfdistill.comparison.grid import Study, plan_study
from selfdistill.comparison.page import page
from selfdistill.comparison.results import (
    RunOutcome,
    describe_difference,
    results_csv,
    row_results,
    summary_csv,
)
from selfdistill.comparison.rows import parse_rows
from selfdistill.records.exit_scores import ExitScore

SCORES = {"ce": (0.70, 0.71, 0.72), "muse": (0.75, 0.77, 0.76), "byot": (0.71, 0.70, 0.725)}


class Page(HTMLParser):
    """Checks that every element is closed; keeps text and addresses."""

    def __init__(self, text):
        super().__init__()
        self.open, self.words, self.loads, self.ids = [], [], [], []
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag, attrs):
        self.handle_startendtag(tag, attrs)
        if tag not in ("meta", "br"):
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        assert tag not in ("script", "iframe", "link")
        self.loads += [value for key, value in attrs if key in ("src", "href", "xlink:href")]
        self.ids += [value for key, value in attrs if key == "id"]

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, text):
        if "style" not in self.open:
            self.words.append(text)

    @property
    def text(self):
        return " ".join(" ".join(self.words).split())


def outcome(row: str, seed: int, test: float | None = None) -> RunOutcome:
    score = SCORES[row][seed]
    test = score if test is None else test
    exits = [ExitScore("exit1", 1, 1, score - 0.1, test - 0.1)] * (row != "ce")
    return RunOutcome(row, seed, [*exits, ExitScore("student", 2, 2, score, test)])


def made(rows="muse,byot", seeds=(0, 1, 2), **more) -> tuple[Study, list[RunOutcome]]:
    study = plan_study(parse_rows([rows]), seeds, **more)
    return study, [outcome(*cell) for cell in study.cells]


def shown(study, outcomes, name="a study") -> tuple[str, Page]:
    text = page(name, study, outcomes, row_results(study, outcomes))
    return text, Page(text)


@pytest.fixture(scope="module")
def full():
    return shown(*made())


def test_says_what_was_found(full):
    _, read = full
    assert "muse helps: +5.00 points of test accuracy over ce (95 % interval" in read.text
    assert read.text.index("muse helps") < read.text.index("3 rows by one recipe")
    assert "muse minus ce: +5.00 points, beyond noise." in read.text
    assert "byot minus ce: +0.17 points, within noise." in read.text
    assert "76.00 ± 1.00 %" in read.text
    assert "These are 2 comparisons" in read.text
    assert "Every exit, test accuracy" in read.text


def test_loads_nothing_and_links_to_the_runs(full):
    text, read = full
    links = {address for address in read.loads if not address.startswith("#")}
    assert links == {f"runs/{r}/s{s}/report.html" for r in SCORES for s in range(3)}
    assert not re.search(r"https?://|@import|url\((?!#)", text)
    assert len(read.ids) == len(set(read.ids))


def test_pictures_are_xml_in_the_colors_of_the_page(full):
    text, _ = full
    pictures = re.findall(r"<svg.*?</svg>", text, re.DOTALL)
    assert len(pictures) == 2
    for picture in pictures:
        ET.fromstring(picture.replace("xlink:href", "href"))
        assert not re.search("#010[12]", picture)
    used = set(re.findall(r"var\((--[\w-]+)\)", text))
    assert used <= set(re.findall(r"(--[\w-]+):", text))


def test_nothing_is_done_yet():
    study, _ = made()
    _, read = shown(study, [RunOutcome(*cell, []) for cell in study.cells])
    assert "0 of 9 runs are done." in read.text
    assert "Against the baseline" not in read.text


def test_two_seeds_have_no_interval():
    _, read = shown(*made(seeds=(0, 1)))
    assert "too few seeds to say" in read.text
    assert "How to read this" not in read.text
    assert " … " not in read.text


def test_escapes_what_people_name():
    study, outcomes = made()
    outcomes[1] = replace(outcomes[1], exits=[], failure="<b>&", code=1)
    _, read = shown(study, outcomes, name="<i>&")
    assert "<i>&" in read.text
    assert "muse, seed 0 failed: <b>&" in read.text


def test_without_test_images_validation_counts():
    study, outcomes = made()
    bare = [replace(o, exits=[replace(e, test_score=None) for e in o.exits]) for o in outcomes]
    assert "validation accuracy" in shown(study, bare)[1].text


def test_differences_are_those_of_the_seeds_that_both_have():
    study, outcomes = made()
    gone = [replace(o, exits=[]) if (o.row, o.seed) == ("ce", 1) else o for o in outcomes]
    found = row_results(study, gone)
    muse = next(r for r in found if (r.row, r.predictor, r.split) == ("muse", "student", "test"))
    assert (muse.difference.n, len(muse.scores)) == (2, 3)
    assert muse.difference.mean == pytest.approx((0.05 + 0.04) / 2)
    two = "muse minus ce: +4.50 points, too few seeds to say."  # whose interval says nothing
    assert describe_difference(muse, "ce") == two
    lonely = row_results(study, [o for o in outcomes if o.row == "muse"])
    assert describe_difference(lonely[-1], "ce") == "muse has no seed in common with ce."


def test_the_tables():
    study, outcomes = made("muse")
    lines = results_csv(study, outcomes).splitlines()
    assert lines[0] == "row,seed,predictor,split,accuracy"
    assert lines[1:3] == ["ce,0,student,val,0.7", "ce,0,student,test,0.7"]
    assert len(lines) == 1 + 3 * 2 + 3 * 4
    summary = summary_csv(row_results(study, outcomes)).splitlines()
    assert summary[1] == "ce,student,val,3,0.71,0.01,,,,,,,"
    assert summary[-1].startswith("muse,student,test,3,0.76,0.01,0.05,3,0.025")
    assert summary[-1].endswith(",beyond noise")
