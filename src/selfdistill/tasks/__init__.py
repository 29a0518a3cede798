"""Floor 3: what labels mean."""

from .classification import Classification
from .segmentation import Segmentation

TASKS = {cls.name: cls for cls in (Classification, Segmentation)}
"""By the name that users call them."""

__all__ = ["TASKS", "Classification", "Segmentation"]
