"""Keys of a recipe that are set and that nothing in its run reads."""

from typing import NamedTuple

from .document import COMPANION_KEYS
from .options import method_classes
from .schema import Recipe


class _Readers(NamedTuple):
    """Keys that are read where another key has one of these values."""

    keys: tuple[str, ...]
    by: str
    values: tuple[str, ...]


_READERS = (
    _Readers(("randaugment_operations", "randaugment_strength"), "auto_augment", ("randaugment",)),
    _Readers(("lr_gamma",), "lr_schedule", ("step",)),
    _Readers(("lr_end_ratio",), "lr_schedule", ("cosine",)),
    _Readers(("ignore_index",), "task", ("segmentation",)),
    _Readers(("empty_images", "invalid_boxes"), "task", ("detection",)),
    _Readers(("clip_frames", "clip_stride", "short_videos"), "task", ("clips",)),
)


def unread_notes(recipe: Recipe) -> list[str]:
    """A sentence on each key that has another value than its default, and no effect."""
    notes = [
        f"{key} is not read: {readers.by} is {getattr(recipe, readers.by)}, and it is about "
        f"{' and '.join(readers.values)}"
        for readers in _READERS
        if getattr(recipe, readers.by) not in readers.values
        for key in readers.keys
        if _is_set(recipe, key)
    ]
    teachers = [cls for cls in method_classes(recipe.method).values() if cls.kind == "offline"]
    taught = f"method '{recipe.method}' reads the teacher's outputs alone"
    unread = {"teacher_taps": taught} if {t.teacher_reads for t in teachers} == {"outputs"} else {}
    if not teachers:
        unread = dict.fromkeys(
            COMPANION_KEYS["offline"], f"method '{recipe.method}' has no teacher"
        )
    return notes + [
        f"{key} is not read: {why}" for key, why in unread.items() if _is_set(recipe, key)
    ]


def _is_set(recipe: Recipe, key: str) -> bool:
    return bool(getattr(recipe, key) != Recipe.model_fields[key].get_default())
