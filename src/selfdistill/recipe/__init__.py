"""The recipe of a run: its keys, read and checked, and what is built from them."""
