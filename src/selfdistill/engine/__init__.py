"""The training loop. It knows the core alone: no method, model or data set by name."""
