"""Evaluation of a trained method: one session owns its task, data, loaders, device."""

from .session import SPLITS, EvaluationSession

__all__ = ["SPLITS", "EvaluationSession"]
