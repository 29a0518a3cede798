"""Pages from the templates in `templates/`: one file each, no scripts, nothing loaded."""

from functools import cache
from importlib.resources import files
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined

from ..core import STUDENT
from ..records import split_name
from ..tasks.metric_names import shown_metric
from . import formatting


@cache
def _environment() -> Environment:
    environment = Environment(
        loader=PackageLoader(__package__),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    for name in ("decimals", "number", "percent", "plain", "share", "shown"):
        environment.filters[name] = getattr(formatting, name)
    environment.filters |= {
        "metric_name": shown_metric,
        "split_name": split_name,
        "thousands": formatting.thousands,
        "titled": formatting.titled,
    }
    environment.globals["STUDENT"] = STUDENT
    return environment


def render(template: str, **values: Any) -> str:
    """A template's text; all values but `Markup` are escaped."""
    return _environment().get_template(template).render(values)


def stylesheet() -> str:
    """The style of all pages."""
    return files(__package__).joinpath("templates", "style.css").read_text(encoding="utf-8")
