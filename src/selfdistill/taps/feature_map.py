"""Features of any form as maps: (B, C, H, W), and of clips (B, C, T, H, W)."""

from collections.abc import Sequence
from typing import Any

from torch import Tensor, nn

from ..core import ConfigError

_PREFIX_PARAMETERS = frozenset(
    ("class_token", "cls_token", "dist_token", "distillation_token", "reg_token", "register_tokens")
)


def as_map(x: Tensor, image: Sequence[int] = (1, 1), prefix_tokens: int = 0) -> Tensor:
    """Any batched feature as (B, C, H, W), or a clip's map of several times as (B, C, T, H, W).

    A map counts as channels-last (Swin) if the two dims before the last have the image's
    proportions and the last two have not. Tokens (B, N, C) lose their prefix and are laid out
    in rows where their number makes a grid of the image's proportions; else they are one column.
    Those of a clip are laid out over as many times as `token_grid` finds.

    Args:
        x: the feature.
        image: height and width of the network's input, or numbers in their proportion; of a clip
            the number of frames before them.
        prefix_tokens: how many tokens of the network come before those of the image.
    """
    if x.dim() == 2:
        return x[:, :, None, None]
    if x.dim() == 3:
        skipped = skipped_tokens(x.shape[1], image, prefix_tokens)
        grid = token_grid(x.shape[1] - skipped, image) or (x.shape[1] - skipped, 1)
        rows: Tensor = x[:, skipped:].transpose(1, 2).unflatten(2, grid)  # type: ignore[no-untyped-call]
        return rows
    if x.dim() in (4, 5):
        a, b, c = x.shape[-3:]
        channels_last = same_aspect((a, b), image[-2:]) and not same_aspect((b, c), image[-2:])
        return x.movedim(-1, 1) if channels_last else x
    raise ConfigError(f"a feature of shape {tuple(x.shape)} is neither a map nor a token sequence")


def image_size(inputs: Any) -> Sequence[int]:
    """Sides of a network's images or clips; of other inputs, such as graphs, a single place."""
    return inputs.shape[2:] if isinstance(inputs, Tensor) else (1, 1)


def same_aspect(sides: Sequence[int], image: Sequence[int]) -> bool:
    """Whether a map has the aspect ratio of the image, up to rounding."""
    return abs(sides[0] * image[1] - sides[1] * image[0]) < max(image)


def token_grid(count: int, image: Sequence[int]) -> tuple[int, ...] | None:
    """Rows and columns of that many tokens in the image's proportions; None if they make none.

    Of a clip, frames before height and width, times, rows and columns: the most times that divide
    the frames and leave such a grid.
    """
    if len(image) == 3:
        for times in (t for t in range(image[0], 0, -1) if image[0] % t == 0 == count % t):
            if grid := token_grid(count // times, image[1:]):
                return (times, *grid)
        return None
    grids = [(rows, count // rows) for rows in range(1, count + 1) if count % rows == 0]
    fitting = [grid for grid in grids if same_aspect(grid, image)]
    deviations = [abs(rows * image[1] - columns * image[0]) for rows, columns in fitting]
    return fitting[deviations.index(min(deviations))] if fitting else None


def skipped_tokens(count: int, image: Sequence[int], prefix_tokens: int) -> int:
    """How many of a feature's tokens are prefix: none at a tap before they join the others."""
    for skipped in (prefix_tokens, 0):
        if token_grid(count - skipped, image):
            return skipped
    return min(prefix_tokens, count - 1)


def count_prefix_tokens(network: nn.Module) -> int:
    """Number of tokens that stand for no place of the image: class, distillation, registers.

    timm's networks declare it; of others (torchvision, transformers) the parameters of these names
    are counted.
    """
    for module in network.modules():
        if isinstance(count := getattr(module, "num_prefix_tokens", None), int):
            return count
    tokens = [
        p for n, p in network.named_parameters() if n.rpartition(".")[2] in _PREFIX_PARAMETERS
    ]
    return sum(p.shape[-2] if p.dim() > 1 else 1 for p in tokens)


def reads_class_token(network: nn.Module) -> bool:
    """Whether the classifier reads the first token instead of the mean of the image's tokens."""
    if not count_prefix_tokens(network):
        return False
    pools = (getattr(module, "global_pool", None) for module in network.modules())
    return next((pool == "token" for pool in pools if isinstance(pool, str)), True)
