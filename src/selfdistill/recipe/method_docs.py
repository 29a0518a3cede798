"""Documentation of a method from its class: summary, paper, tasks, and its docstring as text."""

import inspect
import re

from ..core import Method
from ..tasks import LOOP_TASKS, TASKS
from .build_method import unsupported_reason


def docstring(method: type[Method]) -> str:
    """Docstring of the class without its indentation."""
    return inspect.getdoc(method) or ""


def summary(method: type[Method]) -> str:
    """First line of the docstring."""
    return docstring(method).partition("\n")[0]


def description(method: type[Method]) -> str:
    """Docstring between its first line and its arguments."""
    return docstring(method).partition("\n")[2].partition("Args:\n")[0]


def paper_url(method: type[Method]) -> str:
    """First address in the docstring, or ""."""
    match = re.search(r"https?://[^\s),;]+", docstring(method))
    return match[0].rstrip(".") if match else ""


def supported_tasks(method: type[Method]) -> str:
    """Names of the tasks that offer what the method needs, or "any" of those of the command."""
    served = {n: t for n, t in (TASKS | LOOP_TASKS).items() if not unsupported_reason(method, t)}
    names = [name for name in TASKS if name in served]
    labeled = [name for name, task in TASKS.items() if not task.embeddings]
    shown = ["any"] if names == labeled else names
    return ", ".join([*shown, *(f"{name} (Python)" for name in LOOP_TASKS if name in served)])


def plain_paragraphs(doc: str) -> list[str]:
    """Paragraphs of a docstring on one line each; equations keep their lines, markup goes."""
    plain = re.sub(r":math:`([^`]*)`", r"\1", doc)
    blocks = [block for block in re.split(r"\n\s*\n", plain) if block.strip()]
    paragraphs, in_equation = [], False
    for block in blocks:
        in_equation = in_equation and block.startswith(" ")
        if block.lstrip().startswith(".. math::"):
            block, in_equation = block.lstrip().removeprefix(".. math::"), True
        lines = [line.strip() for line in block.splitlines() if line.strip()]
        if in_equation:
            paragraphs += ["\n".join(f"    {line}" for line in lines)] if lines else []
        else:
            paragraphs.append(" ".join(lines))
    return paragraphs
