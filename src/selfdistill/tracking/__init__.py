"""Experiment trackers that a run's log is sent to: one file each, and what they share."""

from .tracker import Tracker, left_by_tracker, make_tracker

__all__ = ["Tracker", "left_by_tracker", "make_tracker"]
