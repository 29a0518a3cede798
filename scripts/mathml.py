"""Formulas of the built site as MathML, which a browser draws without scripts or a network."""

import html
import re
from pathlib import Path

from latex2mathml.converter import convert

SITE = Path(__file__).parents[1] / "site"
_FORMULA = re.compile(r'<(span|div) class="arithmatex">\\([(\[])(.*?)\\[)\]]</\1>', re.DOTALL)


def with_mathml(page: str) -> str:
    """A page of HTML whose formulas in TeX are MathML."""

    def drawn(match: re.Match[str]) -> str:
        tag, bracket, tex = match.groups()
        display = "block" if bracket == "[" else "inline"
        formula = convert(html.unescape(tex).strip(), display=display)
        return f'<{tag} class="arithmatex">{formula}</{tag}>'

    return _FORMULA.sub(drawn, page)


if __name__ == "__main__":
    for file in SITE.rglob("*.html"):
        text = file.read_text(encoding="utf-8")
        if (page := with_mathml(text)) != text:
            file.write_text(page, encoding="utf-8")
