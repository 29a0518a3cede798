"""Floor 5: one page that shows what a run did. Knows the run directory, and no method by name."""
