"""Floor 4: training. Knows the contracts of the core and no method, model or data set by name."""
