"""Check all links of the built site, and of the README into the repository.

uv run python scripts/links.py

Pages, files and anchors have to be there; an address elsewhere only has to look like one.
"""

import os
import re
import sys
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

ROOT = Path(__file__).resolve().parents[1]
SITE = ROOT / "site"


class Page(HTMLParser):
    """The links and the anchors of a page."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.links: list[str] = []
        self.anchors: set[str] = {""}
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Collect them."""
        for name, value in attrs:
            if name in ("id", "name") and value:
                self.anchors.add(value)
            if name in ("href", "src") and value is not None:
                self.links.append(value)


def broken_in_site(site: Path) -> Iterator[str]:
    """`LINK in PAGE and N more` of everything that is linked and not there."""
    pages = {file: Page(file.read_text(encoding="utf-8")) for file in site.rglob("*.html")}
    linked: dict[str, list[Path]] = {}
    for file, page in sorted(pages.items()):
        for link in dict.fromkeys(page.links):
            if not leads_somewhere(link, file, site, pages):
                linked.setdefault(_told(link, file, site), []).append(file)
    for goal, files in linked.items():
        others = f" and {len(files) - 1} more" if len(files) > 1 else ""
        yield f"{goal} in {files[0].relative_to(site)}{others}"


def _told(link: str, file: Path, site: Path) -> str:
    """The same words for the same goal, whichever page it is linked from."""
    parts = urlsplit(link)
    if parts.scheme or link.startswith("/"):
        return link
    place = os.path.relpath(file.parent / parts.path, site) if parts.path else ""
    return f"/{place or file.relative_to(site)}{'#' * bool(parts.fragment)}{parts.fragment}"


def leads_somewhere(link: str, file: Path, site: Path, pages: dict[Path, Page]) -> bool:
    """Whether a link in a page of the site has a goal."""
    parts = urlsplit(link)
    if parts.scheme or parts.netloc:
        return looks_right(link)
    path = unquote(parts.path)
    goal = site / path.lstrip("/") if path.startswith("/") else (file.parent / path).resolve()
    if path == "":
        goal = file
    if goal.is_dir():
        goal = goal / "index.html"
    if goal in pages:
        return unquote(parts.fragment) in pages[goal].anchors
    return goal.is_file() and goal.is_relative_to(site)


def looks_right(link: str) -> bool:
    """Whether an address elsewhere can be one."""
    parts = urlsplit(link)
    if parts.scheme in ("mailto", "data"):
        return bool(parts.path)
    return parts.scheme in ("", "https") and "." in parts.netloc and " " not in link


def broken_in_readme(readme: Path) -> Iterator[str]:
    """`README.md: LINK` of every link to a file or an address that cannot be."""
    for link in re.findall(r"\]\(([^)\s]+)\)", readme.read_text(encoding="utf-8")):
        elsewhere = bool(urlsplit(link).scheme)
        found = looks_right(link) if elsewhere else (readme.parent / urlsplit(link).path).exists()
        if not found:
            yield f"{readme.name}: {link}"


if __name__ == "__main__":
    if not SITE.exists():
        sys.exit("there is no site/ to check; scripts/docs builds it")
    broken = [*broken_in_readme(ROOT / "README.md"), *broken_in_site(SITE)]
    print("\n".join(broken) if broken else "all links lead somewhere")
    sys.exit(bool(broken))
