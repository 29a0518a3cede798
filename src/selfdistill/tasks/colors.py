"""Colors of classes, in drawings and their legends."""

Color = tuple[int, int, int]

# Twenty distinguishable colors by Sasha Trubetskoy (https://sashamaps.net/docs/resources/20-colors/),
# gray first: class 0 is often the background.
_COLORS = (
    "808080", "e6194b", "3cb44b", "ffe119", "4363d8", "f58231", "911eb4", "42d4f4", "f032e6",
    "bfef45", "fabed4", "469990", "dcbeff", "9a6324", "fffac8", "800000", "aaffc3", "808000",
    "ffd8b1", "000075",
)  # fmt: skip


def colors(classes: int) -> list[Color]:
    """Red, green and blue of each class in 0 … 255; they repeat beyond twenty classes."""
    codes = [_COLORS[label % len(_COLORS)] for label in range(classes)]
    return [(int(c[:2], 16), int(c[2:4], 16), int(c[4:], 16)) for c in codes]
