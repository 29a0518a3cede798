"""Floor 7: many runs compared, and the papers' rows made again."""
