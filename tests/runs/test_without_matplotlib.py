"""A run without matplotlib leaves all its tables, and says how to get the page."""

import sys
from importlib import import_module

import pytest

from selfdistill.core import MissingExtraError
from selfdistill.engine.callback import Callback
from selfdistill.runs.train import train


class Messages(Callback):
    def __init__(self):
        self.messages = []

    def on_message(self, text):
        self.messages.append(text)


@pytest.fixture
def no_matplotlib(monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib", None)  # an import of it fails
    for name in list(sys.modules):
        if name.startswith("selfdistill.reporting."):
            monkeypatch.delitem(sys.modules, name)


def test_tables_are_written_and_the_page_is_explained(no_matplotlib, tmp_path):
    callback = Messages()
    tiny = {"method": "ce", "model": "cifar/resnet8", "data": "digits", "epochs": 1}
    run = train(**tiny, out=tmp_path / "run", callback=callback)
    assert (run.path / "exits.csv").exists()
    assert (run.path / "confusion.csv").exists()
    assert not (run.path / "report.html").exists()
    assert 'pip install "selfdistill[plot]"' in callback.messages[-1]
    with pytest.raises(MissingExtraError, match="needs matplotlib"):
        import_module("selfdistill.reporting.run_page")
