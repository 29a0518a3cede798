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
    options: dict[str, float | int | str | None] = {
        "max_loss": max_loss,
        "float_layers": float_layers,
        "batch_size": batch_size,
        "num_threads": num_threads,
    }
    if format != INT8:
        if given := [name for name, value in options.items() if value is not None]:
            word = given[0].removeprefix("num_").replace("_", "-")
            raise ConfigError(f"--{word} is an option of --format {INT8} alone")
        return None
    if max_loss is not None and not 0 <= max_loss < 1:
        raise ConfigError(
            f"the allowed loss is a part of the score, from 0 to below 1, not {max_loss:g}; 0.01 "
            "is a point"
        )
    for name, count in (("batch_size", batch_size), ("num_threads", num_threads)):
        if count is not None and count < 1:
            raise ConfigError(f"{name}={count} must be 1 or more")
    default = Int8Options()
    return Int8Options(
        default.max_loss if max_loss is None else max_loss,
        default.float_layers if float_layers is None else _float_layers(float_layers),
        batch_size or default.batch_size,
        num_threads,
    )


def _float_layers(float_layers: int | str) -> int | str:
    text = str(float_layers)
    if text == AUTO:
        return AUTO
    if not (text.isascii() and text.isdecimal() and len(text) < 10):
        raise ConfigError(
            f"--float-layers is a number of layers, or {AUTO}, not '{shortened(text)}'"
        )
    return int(text)
