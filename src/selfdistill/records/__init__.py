"""The files that a run leaves behind: one record, one writer and one reader for each."""

BASELINE = "baseline"
"""The name of the run without distillation, where it stands among predictors."""
SPLITS = ("val", "test")
"""The held-out splits, in the order of preference for choosing and of reporting."""


def split_name(split: str) -> str:
    """A split for people: "validation" for "val"."""
    return {"val": "validation"}.get(split, split)
