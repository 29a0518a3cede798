"""Images by name, augmented and batched. A batch is a function of (seed, epoch, step)."""

from .eval_loader import EvalLoader
from .extra_images import ExtraImages, LoaderWithExtra, UnlabeledLoader, read_extra_images
from .image_data import ImageData
from .image_set import ImageSet
from .images import ImageFiles
from .in_memory import InMemoryImages
from .loader import Loader
from .notes import data_notes, warn_of_data
from .sources import SOURCES, load, register_data
from .splits import DatasetSplits

__all__ = [
    "SOURCES",
    "DatasetSplits",
    "EvalLoader",
    "ExtraImages",
    "ImageData",
    "ImageFiles",
    "ImageSet",
    "InMemoryImages",
    "Loader",
    "LoaderWithExtra",
    "UnlabeledLoader",
    "data_notes",
    "load",
    "read_extra_images",
    "register_data",
    "warn_of_data",
]
