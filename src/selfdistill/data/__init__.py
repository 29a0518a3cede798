"""Floor 3: images by name, augmented and batched. A batch is a function of (seed, epoch, step)."""

from .images import Folder, ImageData, Images, Resident
from .loader import EvalLoader, Loader
from .sources import SOURCES, load

__all__ = [
    "SOURCES",
    "EvalLoader",
    "Folder",
    "ImageData",
    "Images",
    "Loader",
    "Resident",
    "load",
]
