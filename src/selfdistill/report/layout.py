"""The page's building blocks as HTML: sections, figures, notes."""

from collections.abc import Sequence


def section(title: str, *parts: str) -> str:
    """A section, or nothing if it would be empty."""
    body = "\n".join(part for part in parts if part)
    return f"<section>\n<h2>{title}</h2>\n{body}\n</section>" if body else ""


def figure(svg: str, title: str, caption: str = "") -> str:
    """A picture, or a table, with what it shows above it and how to read it below."""
    said = f"<figcaption>{caption}</figcaption>" if caption else ""
    return f"<figure><h3>{title}</h3>{svg}{said}</figure>"


def note(text: str) -> str:
    """A quiet paragraph, or nothing."""
    return f'<p class="note">{text}</p>' if text else ""


def pair(figures: Sequence[str]) -> str:
    """Large figures, two in a row where there is room."""
    return f'<div class="pair">{"".join(figures)}</div>' if figures else ""


def many(figures: Sequence[str]) -> str:
    """Small figures, three in a row where there is room."""
    return f'<div class="many">{"".join(figures)}</div>'


def folded(title: str, body: str) -> str:
    """What is shown when it is asked for."""
    return f"<details><summary>{title}</summary>\n{body}\n</details>"
