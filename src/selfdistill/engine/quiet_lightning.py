"""Lightning without its greetings."""

import logging
from collections.abc import Iterator
from contextlib import contextmanager

_LOGGERS = ("lightning_fabric", "lightning.fabric", "lightning.pytorch", "pytorch_lightning")


@contextmanager
def quiet_lightning() -> Iterator[None]:
    """Suppress lightning's greetings; its warnings stay."""
    loggers = [logging.getLogger(name) for name in _LOGGERS]  # which one speaks, imports decide
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.WARNING)
    try:
        yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)
