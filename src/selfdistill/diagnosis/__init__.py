"""Diagnosis of a run before it starts: data, network, teacher, first step and training cost."""

from .data import DataReport
from .diagnose import DiagnosisCallback, DiagnosticReport, ReportSection, diagnose
from .first_step import FirstStepReport, TermProfile
from .network import AddedModule, NetworkReport
from .teacher import TeacherReport
from .training_cost import Memory, Speed, TrainingCost

__all__ = [
    "AddedModule",
    "DataReport",
    "DiagnosisCallback",
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
