"""A trained network, or one of its exits, as a verified file with a model card."""
