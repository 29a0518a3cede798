"""Options of a data set that are out of their range."""

from ..core import ConfigError, nearest


def check_policies(**policies: tuple[str, tuple[str, ...]]) -> None:
    """Raises `ConfigError` for an option that is none of its choices."""
    for option, (value, choices) in policies.items():
        if value not in choices:
            raise ConfigError(f"{option}='{value}' is unknown{nearest(value, choices)}")


def check_fraction(val_fraction: float) -> None:
    """Raises `ConfigError` for what is no fraction."""
    if not 0 <= val_fraction < 1:
        raise ConfigError(f"val_fraction={val_fraction:g} is no fraction; give 0 … 0.99")


ImageSize = int | tuple[int, int]
"""The side of a square, or height and width."""


def both_sides(size: ImageSize | None) -> tuple[int, int] | None:
    """Height and width."""
    return (size, size) if isinstance(size, int) else size


def check_numbers(**numbers: int | tuple[int, int] | None) -> None:
    """Raises `ConfigError` for a number below 1, or one of two."""
    for option, value in numbers.items():
        if value is not None and min(value if isinstance(value, tuple) else (value,)) < 1:
            raise ConfigError(f"{option}={value} must be 1 or more; leave it out for the default")
