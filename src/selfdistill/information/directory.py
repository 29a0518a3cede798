"""Directory of a measurement."""

from itertools import count
from pathlib import Path


def default_directory() -> Path:
    """`information`, with a number behind it if that exists."""
    candidates = (Path(f"information-{n}" if n > 1 else "information") for n in count(1))
    return next(path for path in candidates if not path.exists())
