"""Which tasks have logits that can be standardized, for methods with this option."""

from ..core import ConfigError, Task


def check_standardizable(task: Task) -> None:
    """Raise `ConfigError` unless outputs are scores of classes, and three or more of these."""
    if not task.class_scores:
        raise ConfigError(
            f"standardize_logits wants outputs that are class scores, unlike {task.name}'s; leave "
            "it out"
        )
    if len(task.classes) < 3:
        raise ConfigError(
            "standardize_logits wants three classes or more: of two only the order would be left; "
            "leave it out"
        )
