"""Charts in the style of the pages; importing any of them takes matplotlib."""

from ...core import require

require("matplotlib", extra="plot", purpose="a page with charts")
