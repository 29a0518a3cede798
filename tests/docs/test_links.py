"""The check of links finds what is broken and nothing else."""

import runpy

import pytest
from blocks import ROOT

CHECK = runpy.run_path(str(ROOT / "scripts" / "links.py"))
PAGE = '<h1 id="top">{title}</h1><a href="{link}">there</a><img src="/pictures/a.png">'


@pytest.fixture
def site(tmp_path):
    (tmp_path / "pictures").mkdir()
    (tmp_path / "pictures" / "a.png").touch()
    (tmp_path / "guide").mkdir()
    (tmp_path / "guide" / "index.html").write_text(PAGE.format(title="guide", link="#top"))
    return tmp_path


GOOD = ("guide/", "guide/#top", "./guide/index.html", "/", "#top", "pictures/a.png")


@pytest.mark.parametrize("link", [*GOOD, "https://arxiv.org/abs/2110.12606", "mailto:a@b.org"])
def test_links_that_lead_somewhere(site, link):
    (site / "index.html").write_text(PAGE.format(title="home", link=link))
    assert not list(CHECK["broken_in_site"](site))


BAD = ("guid/", "guide/#bottom", "../guide/", "guide.md", "http://arxiv.org", "https://arxiv")


@pytest.mark.parametrize("link", BAD)
def test_links_that_do_not(site, link):
    (site / "index.html").write_text(PAGE.format(title="home", link=link))
    (found,) = CHECK["broken_in_site"](site)
    assert found.endswith("in index.html")


def test_readme(tmp_path):
    readme = tmp_path / "README.md"
    (tmp_path / "LICENSE").touch()
    readme.write_text("[a](LICENSE#b), [c](https://d.org/e) and [f](docs/none.md)")
    assert list(CHECK["broken_in_readme"](readme)) == ["README.md: docs/none.md"]
