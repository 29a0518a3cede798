"""Evaluation of a trained method: one session owns its task, data, loaders, device."""

from .session import EvaluationSession

__all__ = ["EvaluationSession"]
