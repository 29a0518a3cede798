"""What the stages of a network know of each other: critics trained on its features alone."""
