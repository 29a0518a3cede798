"""Keyed draws against SplitMix64 in plain Python and against what chance allows."""

import math
from itertools import permutations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from selfdistill.core.keyed_random import bits, integers, permutation, purpose, uniform

MASK = (1 << 64) - 1
GOLDEN = 0x9E3779B97F4A7C15
PUBLISHED = [  # the first outputs of SplitMix64 from seed 1234567
    6457827717110365317,
    3203168211198807973,
    9817491932198370423,
    4593380528125082431,
    16408922859458223821,
]
keys = st.integers(-(1 << 63), (1 << 63) - 1)


def splitmix(state: int) -> int:
    """One step of SplitMix64 in unbounded integers: add the golden gamma, then finalize."""
    z = (state + GOLDEN) & MASK
    z = ((z ^ (z >> 30)) * 0xBF58476D1CE4E5B9) & MASK
    z = ((z ^ (z >> 27)) * 0x94D049BB133111EB) & MASK
    return z ^ (z >> 31)


def signed(value: int) -> int:
    return value - (1 << 64) if value >> 63 else value


@pytest.mark.parametrize(("i", "want"), list(enumerate(PUBLISHED)))
def test_equals_the_published_outputs(i, want):
    key = signed(i * GOLDEN & MASK)
    assert bits(1234567, key).item() == want & (MASK >> 1)


@settings(max_examples=100, deadline=None)
@given(st.integers(0, (1 << 32) - 1), st.lists(keys, min_size=1, max_size=4))
def test_equals_splitmix_in_plain_python(start, chain):
    state = start
    for key in chain:
        state = splitmix(state + key & MASK)
    assert bits(start, *chain).item() == state & (MASK >> 1)
    assert bits(start, *map(torch.tensor, chain)).item() == state & (MASK >> 1)


def test_uniform_is_the_top_24_bits():
    got = uniform(7, torch.arange(100))
    want = [(b >> 39) / 2**24 for b in bits(7, torch.arange(100)).tolist()]
    assert got.dtype == torch.float32
    assert got.tolist() == want


@settings(max_examples=30, deadline=None)
@given(st.integers(1, 1000), keys)
def test_integers_are_a_remainder(high, key):
    drawn = integers(high, 3, key).item()
    assert drawn == bits(3, key).item() % high
    assert 0 <= drawn < high


def test_purposes_differ():
    names = ["crop", "flip", "order", "weights", "muse.negatives"]
    assert len({purpose(n) for n in names}) == len(names)
    assert purpose("crop") == purpose("crop")


def test_a_draw_depends_on_its_own_key_alone():
    index = torch.arange(60)
    together = uniform(1, 5, index)
    assert torch.equal(together, uniform(1, 5, index))
    assert torch.equal(together.view(3, 20), uniform(1, 5, index.view(3, 20)))
    assert torch.equal(together[17:23], uniform(1, 5, index[17:23]))
    assert torch.equal(together.flip(0), uniform(1, 5, index.flip(0)))
    one_by_one = torch.stack([uniform(1, torch.tensor(5), i) for i in index])
    assert torch.equal(together, one_by_one)


def test_keys_broadcast():
    table = uniform(1, torch.arange(4)[:, None], torch.arange(6))
    assert table.shape == (4, 6)
    assert table[2, 5] == uniform(1, 2, 5)


def test_keys_do_not_commute():
    assert bits(1, 2, 3) != bits(1, 3, 2)


def test_torchs_generator_plays_no_part():
    torch.manual_seed(0)
    state, first = torch.get_rng_state(), permutation(9, 1, 2)
    assert torch.equal(torch.get_rng_state(), state)
    torch.manual_seed(1)
    assert torch.equal(first, permutation(9, 1, 2))


@pytest.mark.parametrize("seed", [0, 1, 12345])
def test_uniform_is_uniform(seed):
    drawn = uniform(purpose("crop"), seed, torch.arange(20_000)).numpy()
    assert drawn.min() >= 0
    assert drawn.max() < 1
    assert stats.kstest(drawn, "uniform").pvalue > 1e-3


def test_uniform_over_seeds():
    """One sample's draws over many seeds, as over many samples of one seed."""
    drawn = uniform(purpose("crop"), torch.arange(20_000), 3, 0).numpy()
    assert stats.chisquare(np.histogram(drawn, 64, (0, 1))[0]).pvalue > 1e-3


@pytest.mark.parametrize("high", [2, 3, 10, 97])
def test_integers_are_uniform(high):
    drawn = integers(high, purpose("class"), torch.arange(20_000)).numpy()
    assert stats.chisquare(np.bincount(drawn, minlength=high)).pvalue > 1e-3


def test_neighboring_keys_are_uncorrelated():
    n = 20_000
    index = torch.arange(n)
    draws = {
        "this": uniform(purpose("crop"), 0, index),
        "next seed": uniform(purpose("crop"), 1, index),
        "next sample": uniform(purpose("crop"), 0, index + 1),
        "purpose": uniform(purpose("flip"), 0, index),
        "deeper": uniform(purpose("crop"), 0, index, 0),
    }
    table = np.corrcoef([d.numpy() for d in draws.values()])
    assert np.abs(table - np.eye(len(draws))).max() < 4.5 / math.sqrt(n)


@pytest.mark.parametrize("bit", [0, 1, 13, 31, 62])
def test_one_bit_of_the_key_flips_half_of_the_bits(bit):
    index = torch.arange(2000)
    changed = (bits(9, index) ^ bits(9, index ^ (1 << bit))).numpy()
    flipped = np.unpackbits(changed.view(np.uint8)).reshape(2000, 64).sum(1)
    assert flipped.mean() == pytest.approx(63 / 2, abs=0.4)
    assert flipped.min() > 8


@settings(max_examples=50, deadline=None)
@given(st.integers(0, 200), keys)
def test_permutation_is_one(n, key):
    assert sorted(permutation(n, 1, key).tolist()) == list(range(n))


def test_all_permutations_of_four_are_as_likely():
    names = {order: i for i, order in enumerate(permutations(range(4)))}
    drawn = [names[tuple(permutation(4, purpose("order"), s).tolist())] for s in range(4800)]
    assert stats.chisquare(np.bincount(drawn, minlength=24)).pvalue > 1e-3
