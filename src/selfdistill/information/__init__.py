"""What the modules of a network know of each other: critics trained on its features alone."""

from .config import EstimatorConfig, NetworkUnderTest
from .estimation import estimate_information
from .page import save
from .results import (
    HELD_OUT,
    TRAINING,
    CriticLoss,
    InformationResult,
    LossCurve,
    MeanStd,
)

__all__ = [
    "HELD_OUT",
    "TRAINING",
    "CriticLoss",
    "EstimatorConfig",
    "InformationResult",
    "LossCurve",
    "MeanStd",
    "NetworkUnderTest",
    "estimate_information",
    "save",
]
