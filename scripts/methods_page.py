"""Write docs/methods.md from the methods' own docstrings and signatures.

uv run python scripts/methods_page.py
"""

import inspect
import re
from pathlib import Path

import selfdistill.methods  # noqa: F401  registers them
from selfdistill.core import METHODS, Evidence, options
from selfdistill.recipe.schema import type_name

PAGE = Path(__file__).parents[1] / "docs" / "methods.md"
KINDS = {
    "baseline": "Baseline",
    "self": "Self-distillation: the student alone",
    "online": "Online: networks that start together (`--peer MODEL`, repeatable)",
    "offline": "Offline: a trained teacher (`--teacher RUN|WEIGHTS|timm/NAME`)",
}


def page() -> str:
    """The whole page as markdown."""
    parts = [
        "# Methods",
        "Made by `scripts/methods_page.py` from the code; do not edit by hand. "
        "`selfdistill methods NAME` prints the same with the equations, and what public code does "
        "differently.",
        "How sure it is that a method here is the one of its paper:",
        "\n".join(f"- **{e.name.lower()}**: {e.value}" for e in Evidence),
        "Some need more of the labels than others: `labels` one class an image, `scores` outputs "
        "that are class scores; the rest serves any task.",
    ]
    for kind, title in KINDS.items():
        names = [name for name in METHODS if METHODS[name].kind == kind]
        parts += [f"## {title}", overview(names)]
        parts += [section(name) for name in names]
    return "\n\n".join(parts) + "\n"


def overview(names: list[str]) -> str:
    """A table of some methods."""
    lines = ["| name | what it does | certain by | needs |", "|---|---|---|---|"]
    for name in names:
        method = METHODS[name]
        needs = [n for n in ("labels", "scores", "partners") if getattr(method.needs, n)]
        needs += [f"{method.needs.views} views"] if method.needs.views > 1 else []
        summary = (inspect.getdoc(method) or "").partition("\n")[0]
        certain = method.evidence.name.lower()
        lines.append(f"| `{name}` | {summary} | {certain} | {', '.join(needs)} |")
    return "\n".join(lines)


def section(name: str) -> str:
    """One method: where it comes from and what can be tuned."""
    doc = inspect.getdoc(METHODS[name]) or ""
    source = re.search(r"https?://[^\s),;]+", doc)
    lines = [f"### `{name}`", f"Source: <{source[0].rstrip('.')}>" if source else ""]
    known = options(METHODS[name]).values()
    if known:
        rows = ["| option | type | default | meaning |", "|---|---|---|---|"]
        for option in known:
            kind = type_name(option.annotation).replace("|", "\\|")
            default = "none" if option.default is None else str(option.default).lower()
            rows.append(f"| `{option.name}` | {kind} | {default} | {option.meaning} |")
        lines.append("\n".join(rows))
    return "\n\n".join(line for line in lines if line)


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
    print(PAGE)
