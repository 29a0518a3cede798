"""Floor 5: what a run is made of, read, checked and put together."""
