"""Floor 3: what labels mean."""

from .classification import Classification

__all__ = ["Classification"]
