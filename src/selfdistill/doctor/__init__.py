"""Floor 7: what a run will do, seen before it starts."""

from .cost import Cost, Memory, Speed
from .data import DataReport
from .examine import Findings, Section, examine
from .network import NetworkReport, Part
from .probe import ProbeReport, Term
from .teacher import TeacherReport

__all__ = [
    "Cost",
    "DataReport",
    "Findings",
    "Memory",
    "NetworkReport",
    "Part",
    "ProbeReport",
    "Section",
    "Speed",
    "TeacherReport",
    "Term",
    "examine",
]
