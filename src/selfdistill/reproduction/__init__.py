"""Rows of the papers' tables as recipes, reproduced and held against what was published."""
