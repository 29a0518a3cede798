"""A run without matplotlib leaves all its tables, and says how to get the page."""

import sys
from importlib import import_module

import pytest
from selfdistill.engine.log import NullCallback

from selfdistill.core import MissingExtraError, extras
from selfdistill.runs.train import train


class Sentences(NullCallback):
    def __init__(self):
        self.sentences = []

    def say(self, sentence):
        self.sentences.append(sentence)


@pytest.fixture
def no_matplotlib(monkeypatch):
    find_spec = extras.find_spec
    monkeypatch.setattr(
        extras, "find_spec", lambda name: None if name == "matplotlib" else find_spec(name)
    )
    for name in list(sys.modules):
        if name.startswith("selfdistill.reporting."):
            monkeypatch.delitem(sys.modules, name)


def test_tables_are_written_and_the_page_is_explained(no_matplotlib, tmp_path):
    display = Sentences()
    tiny = {"method": "ce", "model": "cifar/resnet8", "data": "digits", "epochs": 1}
    run = train(**tiny, out=tmp_path / "run", display=display)
    assert (run.path / "exits.csv").exists()
    assert (run.path / "confusion.csv").exists()
    assert not (run.path / "report.html").exists()
    assert 'pip install "selfdistill[plot]"' in display.sentences[-1]
    with pytest.raises(MissingExtraError, match="need matplotlib"):
        import_module("selfdistill.reporting.run_page")
