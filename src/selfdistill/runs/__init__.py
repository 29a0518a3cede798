"""A run from its recipe to its results, and what can be done with it afterwards."""
