"""What an export to int8 may lose, and how it is timed. Imports no torch."""

from typing import NamedTuple

from ..errors import ConfigError, shortened

INT8 = "onnx-int8"
"""The format whose options these are."""
AUTO = "auto"


class Int8Options(NamedTuple):
    """Options of an export to int8.

    Attributes:
        max_loss: how much lower than the float32 file's the score may be; 0.01 is a point.
        float_layers: how many of the layers that lose most stay in float32; ``"auto"`` takes the
            fewest, of 0, 1, 2, 4 …, that keep the loss on the validation images.
        batch_size: images of a timed forward pass.
        num_threads: of the CPU, for timing; None takes as many as torch does.
    """

    max_loss: float = 0.01
    float_layers: int | str = 0
    batch_size: int = 1
    num_threads: int | None = None


def int8_options(
    format: str,
    *,
    max_loss: float | None = None,
    float_layers: int | str | None = None,
    batch_size: int | None = None,
    num_threads: int | None = None,
) -> Int8Options | None:
    """The options that are given, the others by their defaults; None for another format.

    Raises:
        ConfigError: an option is out of range, or given for a format that does not take it.
    """
    options = {
        "max_loss": max_loss,
        "float_layers": float_layers,
        "batch_size": batch_size,
        "num_threads": num_threads,
    }
    given = {name: value for name, value in options.items() if value is not None}
    if format != INT8:
        if given:
            option = "--" + {"num_threads": "threads"}.get(*[next(iter(given))] * 2)
            raise ConfigError(f"{option.replace('_', '-')} is an option of --format {INT8} alone")
        return None
    if max_loss is not None and not 0 <= max_loss < 1:
        raise ConfigError(
            f"the allowed loss is a part of the score, from 0 to below 1, not {max_loss:g}; 0.01 "
            "is a point"
        )
    if float_layers is not None and float_layers != AUTO:
        given["float_layers"] = _count(float_layers)
    for name in ("batch_size", "num_threads"):
        if name in given and given[name] < 1:
            raise ConfigError(f"{name}={given[name]} must be 1 or more")
    return Int8Options(**given)


def _count(float_layers: int | str) -> int:
    text = str(float_layers)
    if not (text.isascii() and text.isdecimal() and len(text) < 10):
        raise ConfigError(
            f"--float-layers is a number of layers, or {AUTO}, not '{shortened(text)}'"
        )
    return int(text)
