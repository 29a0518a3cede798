"""Floor 5: what a trained method is worth, and taking it out."""
