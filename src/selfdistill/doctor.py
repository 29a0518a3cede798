"""What a run will do, seen before it starts."""
