"""A page and its building blocks as HTML: sections, figures, notes."""

from collections.abc import Mapping, Sequence
from html import escape
from importlib.resources import files


def document(
    kind: str, name: str, header: str, body: str, colors: Mapping[str, Sequence[str]]
) -> str:
    """A whole page: one file, no scripts, nothing loaded from anywhere.

    Args:
        kind: what sort of page it is, as a few words.
        name: of what it shows, as plain text.
        header: what stands below the name.
        body: the sections.
        colors: of exits 1, 2, …, for the themes "light" and "dark", see `canvas.palette`.
    """
    style = files(__package__).joinpath("style.css").read_text(encoding="utf-8")
    light, dark = (
        " ".join(f"--exit-{i}: {color};" for i, color in enumerate(colors[theme], 1))
        for theme in ("light", "dark")
    )
    return f"""<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{escape(name)} – selfdistill</title>
<style>
{style}:root {{ {light} }}
@media screen and (prefers-color-scheme: dark) {{ :root {{ {dark} }} }}
</style>
</head>
<body>
<header>
<p class="kicker">selfdistill {kind}</p>
<h1>{escape(name)}</h1>
{header}
</header>
<main>
{body}
</main>
</body>
</html>
"""


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
