"""RandAugment and TrivialAugment by torchvision's operations, each draw keyed by its sample."""

import math
from collections.abc import Callable
from functools import cache
from typing import Any, NamedTuple

import torch
from torch import Tensor

from ..core import IGNORE, keyed_random

_OPERATION, _MAGNITUDE, _SIGN = map(
    keyed_random.purpose, ("operation", "magnitude", "sign of a magnitude")
)
BINS = 31
"""Strengths of an operation, 0 … 30."""
SIGNED = ("shear_x", "shear_y", "translate_x", "translate_y", "rotate")
"""Operations that move pixels, masks with them; those of color follow."""
_COLORS = ("brightness", "color", "contrast", "sharpness")
_PLAIN = ("posterize", "solarize", "auto_contrast", "equalize")
OPERATIONS = ("identity", *SIGNED, *_COLORS, *_PLAIN)


class Policy(NamedTuple):
    """Strongest magnitudes of a policy.

    Attributes:
        shear: as a slope; `rotate` in degrees, `color` as a change of the factor 1.
        shift: in pixels, or where it is below 1 of the image's side.
        posterize: bits that are taken away.
    """

    shear: float
    shift: float
    rotate: float
    color: float
    posterize: int


POLICIES = {
    "randaugment": Policy(0.3, 150 / 331, 30.0, 0.9, 4),
    "trivial": Policy(0.99, 32.0, 135.0, 0.99, 6),
}
"""As torchvision's `RandAugment` and `TrivialAugmentWide` have them."""


class Draw(NamedTuple):
    """What happens to an image: an operation of `OPERATIONS`, its strength, and its sign."""

    operation: str
    strength: int
    sign: int


class AutoAugment(NamedTuple):
    """Random operations on whole images, by one policy.

    "randaugment" takes `operations` of them at one strength (Cubuk et al. 2020,
    https://arxiv.org/abs/1909.13719), "trivial" one at any strength (Müller and Hutter 2021,
    https://arxiv.org/abs/2103.10158, the wide space). Pixels from outside are black, those of masks
    `IGNORE`. Images are sampled bilinearly.

    Attributes:
        policy: a name in `POLICIES`.
        seed: key of every draw.
        operations: of RandAugment, one after the other.
        strength: of RandAugment, 0 … 30.
        samples: the indices of a batch on the CPU, (B,) int64, so that their draws are known
            without waiting for the device; None to read them there.
    """

    policy: str
    seed: int
    operations: int = 2
    strength: int = 9
    samples: Tensor | None = None

    def images(self, images: Tensor, epoch: int, index: Tensor, view: int = 0) -> Tensor:
        """(B, C, H, W) or (B, C, T, H, W) uint8; all frames of a clip are changed alike."""
        frames = images.transpose(1, 2) if images.dim() == 5 else images  # (B, T, C, H, W)
        for draws in self.draws(epoch, index, view):
            frames = _by_draw(frames, draws, self._apply)
        return frames.transpose(1, 2).contiguous() if images.dim() == 5 else frames

    def masks(self, masks: Tensor, epoch: int, index: Tensor) -> Tensor:
        """(B, H, W) uint8, moved as the images of the first view are."""
        for draws in self.draws(epoch, index, 0):
            moves = [d if d.operation in SIGNED else Draw("identity", 0, 1) for d in draws]
            masks = _by_draw(masks[:, None], moves, self._apply_to_masks)[:, 0]
        return masks

    def draws(self, epoch: int, index: Tensor, view: int) -> list[list[Draw]]:
        """For each operation in turn what each sample gets."""
        trivial = self.policy == "trivial"
        samples = index.cpu() if self.samples is None else self.samples
        rounds = []
        for turn in range(1 if trivial else self.operations):
            keys = self.seed, epoch, samples, view, turn
            numbers = keyed_random.integers(len(OPERATIONS), _OPERATION, *keys).tolist()
            strengths = [self.strength] * len(samples)
            if trivial:
                strengths = keyed_random.integers(BINS, _MAGNITUDE, *keys).tolist()
            signs = (1 - 2 * keyed_random.integers(2, _SIGN, *keys)).tolist()
            named = [OPERATIONS[number] for number in numbers]
            rounds.append([Draw(*d) for d in zip(named, strengths, signs, strict=True)])
        return rounds

    def magnitude(self, draw: Draw, height: int, width: int) -> float:
        """The number that an operation takes, with its sign where it has one."""
        policy = POLICIES[self.policy]
        if draw.operation == "posterize":
            return round(8 - policy.posterize * draw.strength / (BINS - 1))
        if draw.operation == "solarize":
            return _evenly(1.0, 0.0, draw.strength)
        side = {"translate_x": width, "translate_y": height}.get(draw.operation, 0)
        strongest = policy.color
        if draw.operation.startswith("shear"):
            strongest = policy.shear
        elif draw.operation == "rotate":
            strongest = policy.rotate
        elif side:
            strongest = policy.shift * (side if policy.shift < 1 else 1)
        return draw.sign * _evenly(0.0, strongest, draw.strength)

    def _apply(self, images: Tensor, draw: Draw) -> Tensor:
        return apply(images, draw.operation, self.magnitude(draw, *images.shape[-2:]))

    def _apply_to_masks(self, masks: Tensor, draw: Draw) -> Tensor:
        height, width = masks.shape[-2:]
        return move(masks, draw.operation, self.magnitude(draw, height, width), "nearest", IGNORE)


@cache
def _evenly(first: float, last: float, strength: int) -> float:
    """One of `BINS` even steps, in single precision as torchvision has them."""
    return float(torch.linspace(first, last, BINS)[strength])


def _by_draw(
    images: Tensor, draws: list[Draw], operation: Callable[[Tensor, Draw], Tensor]
) -> Tensor:
    """Images each changed by its own draw; those of one draw together."""
    groups: dict[Draw, list[int]] = {}
    for i, draw in enumerate(draws):
        groups.setdefault(draw, []).append(i)
    result = images.clone()
    rows = torch.tensor([row for group in groups.values() for row in group])
    parts = rows.to(images.device, non_blocking=True).split([len(g) for g in groups.values()])
    for draw, index in zip(groups, parts, strict=True):
        if draw.operation != "identity":
            result.index_copy_(0, index, operation(images.index_select(0, index), draw))
    return result


def _functional() -> Any:
    """torchvision's operations, which take seconds to import."""
    from torchvision.transforms.v2 import functional

    return functional


def apply(images: Tensor, operation: str, magnitude: float) -> Tensor:
    """One operation on images (..., C, H, W) uint8 of one or three channels."""
    if operation in SIGNED:
        return move(images, operation, magnitude, "bilinear", 0)
    transforms = _functional()
    operations: dict[str, Callable[[Tensor], Any]] = {
        "identity": lambda x: x,
        "brightness": lambda x: transforms.adjust_brightness(x, 1 + magnitude),
        "color": lambda x: transforms.adjust_saturation(x, 1 + magnitude),
        "contrast": lambda x: transforms.adjust_contrast(x, 1 + magnitude),
        "sharpness": lambda x: transforms.adjust_sharpness(x, 1 + magnitude),
        "posterize": lambda x: transforms.posterize(x, int(magnitude)),
        "solarize": lambda x: transforms.solarize(x, 255 * magnitude),
        "auto_contrast": transforms.autocontrast,
        "equalize": transforms.equalize,
    }
    changed: Tensor = operations[operation](images)
    return changed


def move(
    images: Tensor, operation: str, magnitude: float, interpolation: str, fill: float
) -> Tensor:
    """One operation that moves the pixels of images or masks (..., C, H, W).

    A shear is about the top left corner and a rotation about the center, as torchvision's policies
    have them. `interpolation` is "bilinear" or "nearest", and `fill` what comes from outside.
    """
    from torchvision.transforms import InterpolationMode

    if operation not in SIGNED:
        return images
    transforms = _functional()
    filling = [fill] if fill else None  # torchvision blends black into the edge, and no other value
    mode: dict[str, Any] = {"interpolation": InterpolationMode(interpolation), "fill": filling}
    moved: Tensor
    if operation == "rotate":
        moved = transforms.rotate(images, magnitude, **mode)
        return moved
    kind, _, axis = operation.partition("_")
    still = [0.0, 0.0]
    if kind == "shear":
        angle = math.degrees(math.atan(magnitude))
        shear = [angle, 0.0] if axis == "x" else [0.0, angle]
        moved = transforms.affine(images, 0.0, [0, 0], 1.0, shear, center=[0, 0], **mode)
        return moved
    shift = [int(magnitude), 0] if axis == "x" else [0, int(magnitude)]
    moved = transforms.affine(images, 0.0, shift, 1.0, still, **mode)
    return moved
