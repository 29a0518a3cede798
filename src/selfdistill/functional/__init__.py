"""Floor 1: pure maths, tensors in and tensors out."""
