"""Randomness without state: every draw is a function of its key.

A draw is keyed by a purpose ("crop") and by integers such as seed, epoch and sample. The same key
gives the same value on every device, in every process and after every resume, so there is no
generator to save. The hash is the finalizer of SplitMix64 (Steele, Lea and Flood 2014,
https://doi.org/10.1145/2714064.2660195), folded over the keys.
"""

import zlib

import torch
from torch import Tensor


def _signed(value: int) -> int:
    """The 64-bit pattern `value` as the signed integer that torch can hold."""
    return value - (1 << 64) if value >= 1 << 63 else value


_GOLDEN = _signed(0x9E3779B97F4A7C15)
_MULTIPLIER_1 = _signed(0xBF58476D1CE4E5B9)
_MULTIPLIER_2 = _signed(0x94D049BB133111EB)


_MASK = (1 << 64) - 1


def _mix_int(x: int) -> int:
    """`_mix` of one number, without the cost of six tensors."""
    x = ((x ^ (x >> 30)) * 0xBF58476D1CE4E5B9) & _MASK
    x = ((x ^ (x >> 27)) * 0x94D049BB133111EB) & _MASK
    return x ^ (x >> 31)


def _shift_right(x: Tensor, n: int) -> Tensor:
    return (x >> n) & ((1 << (64 - n)) - 1)  # logical shift: torch's >> keeps the sign


def _mix(x: Tensor) -> Tensor:
    x = (x ^ _shift_right(x, 30)) * _MULTIPLIER_1
    x = (x ^ _shift_right(x, 27)) * _MULTIPLIER_2
    return x ^ _shift_right(x, 31)


def purpose(name: str) -> int:
    """A number for the purpose of a draw, so that two uses of one key stay independent."""
    return zlib.crc32(name.encode())


def bits(purpose: int, *keys: Tensor | int) -> Tensor:
    """Uniform integers in 0 … 2⁶³−1, one for each element of the broadcast keys (int64).

    Examples:
        >>> bits(purpose("order"), 0, torch.arange(3)).shape
        torch.Size([3])
    """
    start = purpose
    while keys and isinstance(keys[0], int):
        start, keys = _mix_int((start + keys[0] + 0x9E3779B97F4A7C15) & _MASK), keys[1:]
    state = torch.tensor(_signed(start))
    for key in keys:
        state = _mix(state + key + _GOLDEN)
    return state & ((1 << 63) - 1)


def uniform(purpose: int, *keys: Tensor | int) -> Tensor:
    """Uniform numbers in [0, 1) with 24 random bits (float32)."""
    return (bits(purpose, *keys) >> 39).to(torch.float32) * 2.0**-24


def integers(high: int, purpose: int, *keys: Tensor | int) -> Tensor:
    """Uniform integers in 0 … high−1 (int64); the bias of the remainder is below high / 2⁶³."""
    return bits(purpose, *keys) % high


def permutation(n: int, purpose: int, *keys: int) -> Tensor:
    """A uniform permutation of 0 … n−1 (int64, on the CPU)."""
    return bits(purpose, *keys, torch.arange(n)).argsort(stable=True)
