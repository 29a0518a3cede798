"""Information between the modules of a network: critics trained on its features."""

from .config import EstimatorConfig, NetworkUnderTest
from .estimation import InformationCallback, estimate_information
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
    "InformationCallback",
    "InformationResult",
    "LossCurve",
    "MeanStd",
    "NetworkUnderTest",
    "estimate_information",
]
