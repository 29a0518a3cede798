"""A frozen teacher's outputs for the views of the training images, kept on the disk."""

from .batches import CachedTeacherBatches
from .encoding import OutputEncoding
from .store import OutputStore

__all__ = ["CachedTeacherBatches", "OutputEncoding", "OutputStore"]
