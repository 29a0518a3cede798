"""Write the pages of the documentation that are made from the code.

uv run python scripts/pages
"""

from pathlib import Path

import command_pages
import method_pages
import preset_page
import recipe_page

DOCS = Path(__file__).parents[2] / "docs"


def pages() -> dict[str, str]:
    """All of them, by their paths below docs/."""
    made = (method_pages, recipe_page, preset_page, command_pages)
    return {path: text for module in made for path, text in module.pages().items()}


def left_over() -> list[Path]:
    """Pages of methods that are gone."""
    made = {DOCS / path for path in pages()}
    return [page for page in (DOCS / "methods").glob("*.md") if page not in made]


if __name__ == "__main__":
    for old in left_over():
        old.unlink()
    for path, text in pages().items():
        page = DOCS / path
        if page.exists() and page.read_text(encoding="utf-8") == text:
            continue  # another process may be reading it
        page.parent.mkdir(parents=True, exist_ok=True)
        page.write_text(text, encoding="utf-8")
    print(f"{len(pages())} pages below {DOCS}")
