"""Floor 3: what labels mean."""

from .classification import Classification
from .detection import Detection
from .segmentation import Segmentation

TASKS = {cls.name: cls for cls in (Classification, Detection, Segmentation)}
"""By the name that users call them."""

__all__ = ["TASKS", "Classification", "Detection", "Segmentation"]
