"""Pure functions: tensors or numbers in and out."""
