"""The tables that a run leaves behind: one record and one codec for each file."""
