"""Reproduction of the papers' tables: their rows as recipes, trained and compared."""
