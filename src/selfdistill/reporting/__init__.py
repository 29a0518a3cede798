"""The page of a run, and its charts, made from the run's records."""
