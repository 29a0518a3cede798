"""Floor 7: what a run will do, seen before it starts."""

from .data import DataReport
from .diagnose import DiagnosticReport, ReportSection, diagnose
from .first_step import FirstStepReport, TermProfile
from .network import AddedPart, NetworkReport
from .teacher import TeacherReport
from .training_cost import Memory, Speed, TrainingCost

__all__ = [
    "AddedPart",
    "DataReport",
    "DiagnosticReport",
    "FirstStepReport",
    "Memory",
    "NetworkReport",
    "ReportSection",
    "Speed",
    "TeacherReport",
    "TermProfile",
    "TrainingCost",
    "diagnose",
]
