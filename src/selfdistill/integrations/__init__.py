"""Floor 6: methods in training loops that are not ours."""
