"""Floor 2: learnable parts that two or more methods share."""
