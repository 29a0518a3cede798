"""The page, the picture and the table."""

import re
import xml.etree.ElementTree as ET
from html.parser import HTMLParser

import pytest
from synthetic_information import synthetic

from selfdistill.core import ResourceError, RunBusyError
from selfdistill.information.charts import combined_svg
from selfdistill.information.page import FILES, page, save

VOID = {"meta", "br"}


class Page(HTMLParser):
    """Checks that every element is closed; keeps headings, words and ids."""

    def __init__(self, text):
        super().__init__()
        self.open, self.words, self.ids, self.titles = [], [], [], []
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag, attrs):
        assert tag not in ("script", "iframe", "link", "img")
        self.ids += [value for key, value in attrs if key == "id"]
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.ids += [value for key, value in attrs if key == "id"]

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, text):
        if self.open and self.open[-1] in ("h2", "h3"):
            self.titles.append(text)
        if "style" not in self.open:
            self.words.append(text)

    @property
    def text(self):
        return " ".join(" ".join(self.words).split())


@pytest.fixture(scope="module")
def several():
    text = page(synthetic(seeds=(0, 1, 2)))
    return text, Page(text)


def test_sections(several):
    _, shown = several
    assert shown.titles == [
        "Information of every module",
        "Mutual information with the last module",
        "Self-information",
        "Mutual information with the last module",
        "deep",
        "flat",
        "Self-information",
        "deep",
        "flat",
    ]


def test_numbers_are_those_of_the_measurement(several):
    found, (_, shown) = synthetic(seeds=(0, 1, 2)), several
    for network in found.networks:
        for term in found.terms(network):
            amount = found.final(network, term)
            assert f"{amount.mean:.3f} ± {amount.std:.3f}" in shown.text
    assert "at 1.386 a critic only guesses" in shown.text
    assert "128 validation images" in shown.text
    assert "low, high" in shown.text


def test_pictures_are_xml_in_the_colors_of_the_page(several):
    text, shown = several
    pictures = re.findall(r"<svg.*?</svg>", text, re.DOTALL)
    assert len(pictures) == 2 + 4
    for picture in pictures:
        ET.fromstring(picture.replace("xlink:href", "href"))
    used = set(re.findall(r"var\((--[\w-]+)\)", text))
    assert used <= set(re.findall(r"(--[\w-]+):", text))
    assert len(shown.ids) == len(set(shown.ids))
    assert not re.search(r"https?://|@import", text)


def test_one_network_is_not_compared():
    shown = Page(page(synthetic(taps={"deep": ("a", "b")})))
    assert shown.titles.count("Self-information") == 1
    assert "±" not in shown.text


@pytest.mark.parametrize(("estimator", "chance"), [("infonce", 4.85), ("dv", 0.0)])
def test_other_estimators_claim_no_divergence(estimator, chance):
    text = page(synthetic(estimator=estimator, chance=chance))
    assert "2 ln 2" not in text
    assert "lower bound of the information in nats" in text


def test_escapes_what_people_name():
    text = page(synthetic(taps={"<b>x</b>": ("a", "b"), "a & b": ("a", "<i>")}))
    assert "<b>x" not in text
    assert "<i>" not in text.replace("<i style", "")
    assert "<b>x</b>" in Page(text).text


def test_the_picture_stands_alone():
    text = combined_svg(synthetic())
    ET.fromstring(text)
    assert "var(" not in text
    assert text.count("<svg") == 1 + 4
    assert "deep: MI with the last module" in text


def test_writes_page_picture_and_table(tmp_path):
    found = synthetic()
    written = save(found, tmp_path / "new" / "folder")
    assert [place.name for place in written] == list(FILES)
    assert written[2].read_text(encoding="utf-8") == found.to_csv()
    before = [place.read_bytes() for place in written]
    with pytest.raises(RunBusyError, match="holds a measurement already"):
        save(synthetic(seeds=(1,)), tmp_path / "new" / "folder")
    assert [place.read_bytes() for place in written] == before


def test_a_place_that_cannot_be_made(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(ResourceError, match="cannot be made"):
        save(synthetic(), tmp_path / "file" / "folder")
