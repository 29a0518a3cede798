"""What the modules of a network know of each other: critics trained on its features alone."""

from .found import HELD_OUT, TRAINING, Amount, Information, Row, Track
from .measuring import measure
from .page import save
from .plan import Plan, Subject

__all__ = [
    "HELD_OUT",
    "TRAINING",
    "Amount",
    "Information",
    "Plan",
    "Row",
    "Subject",
    "Track",
    "measure",
    "save",
]
