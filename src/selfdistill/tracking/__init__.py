"""Experiment trackers that a run's log is sent to: one file each, and what they share."""

from .tracker import Tracker, make_tracker

__all__ = ["Tracker", "make_tracker"]
