"""Encoded scores against numpy and scipy."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.special import logsumexp, softmax

from selfdistill.core import ConfigError
from selfdistill.teacher_cache import OutputEncoding

SCORES = np.random.default_rng(0).normal(0, 4, (7, 30)).astype(np.float32)


def round_trip(encoding: OutputEncoding, scores: np.ndarray) -> np.ndarray:
    return encoding.decode(encoding.encode(torch.from_numpy(scores))).numpy()


def with_spread_rest(scores: np.ndarray, kept: int, tau: float) -> np.ndarray:
    """The largest scores of each row; the others share the rest's mass at τ."""
    rows = []
    for row in scores.astype(np.float64):
        largest = np.argsort(-row)[:kept]
        others = np.setdiff1d(np.arange(len(row)), largest)
        level = tau * (logsumexp(row[others] / tau) - np.log(len(others)))
        new = np.full(len(row), level)
        new[largest] = row[largest]
        rows.append(new)
    return np.stack(rows)


def test_all_scores_in_fp32_come_back_bit_for_bit():
    encoding = OutputEncoding(30, 30)
    assert np.array_equal(round_trip(encoding, SCORES), SCORES)


@pytest.mark.parametrize(("precision", "kept"), [("fp32", 30), ("fp16", 3)])
def test_pooled_features_are_kept_whole(precision, kept):
    encoding = OutputEncoding(30, kept, precision, pooled_width=4)
    pooled = np.random.default_rng(2).normal(0, 4, (7, 4)).astype(np.float32)
    stored = encoding.encode(torch.from_numpy(SCORES), torch.from_numpy(pooled))
    want = pooled.astype(np.float16 if precision == "fp16" else np.float32)
    assert np.array_equal(encoding.decode_pooled(stored).numpy(), want.astype(np.float32))
    assert sum(t[0].numel() * t.element_size() for t in stored.values()) == encoding.num_bytes()


@pytest.mark.parametrize("tau", [1.0, 4.0])
@pytest.mark.parametrize("kept", [1, 5, 29])
def test_equals_numpy(kept, tau):
    encoding = OutputEncoding(30, kept, temperature=tau)
    want = with_spread_rest(SCORES, kept, tau)
    np.testing.assert_allclose(round_trip(encoding, SCORES), want, rtol=1e-5, atol=1e-5)


@settings(max_examples=30, deadline=None)
@given(st.integers(1, 29), st.floats(0.5, 10), st.integers(0, 1000))
def test_probabilities_of_what_is_kept_are_exact_at_the_temperature(kept, tau, seed):
    scores = np.random.default_rng(seed).normal(0, 3, (3, 30)).astype(np.float32)
    decoded = round_trip(OutputEncoding(30, kept, temperature=tau), scores)
    was, now = (softmax(x.astype(np.float64) / tau, 1) for x in (scores, decoded))
    largest = np.argsort(-scores, 1)[:, :kept]
    for row, old, new in zip(largest, was, now, strict=True):
        np.testing.assert_allclose(new[row], old[row], rtol=1e-4)
        np.testing.assert_allclose(1 - new[row].sum(), 1 - old[row].sum(), atol=1e-5)


def test_scores_of_places_are_kept_place_by_place():
    scores = np.random.default_rng(1).normal(0, 3, (2, 9, 3, 4)).astype(np.float32)
    decoded = round_trip(OutputEncoding(9, 4, temperature=2.0), scores)
    rows = scores.transpose(0, 2, 3, 1).reshape(-1, 9)
    want = with_spread_rest(rows, 4, 2.0).reshape(2, 3, 4, 9).transpose(0, 3, 1, 2)
    np.testing.assert_allclose(decoded, want, rtol=1e-5, atol=1e-5)


def test_fp16_rounds_as_numpy_does():
    decoded = round_trip(OutputEncoding(30, 30, "fp16"), SCORES)
    assert np.array_equal(decoded, SCORES.astype(np.float16).astype(np.float32))


@pytest.mark.parametrize(("classes", "dtype"), [(256, "uint8"), (257, "int16"), (40000, "int32")])
def test_classes_are_stored_in_as_few_bytes_as_hold_them(classes, dtype):
    scores = torch.arange(classes, dtype=torch.float32)[None] / classes
    encoding = OutputEncoding(classes, 3)
    stored = encoding.encode(scores)
    assert str(stored["classes"].dtype) == f"torch.{dtype}"
    assert encoding.decode(stored).argmax() == classes - 1
    assert sum(t.numel() * t.element_size() for t in stored.values()) == encoding.num_bytes()


def test_a_million_images_at_fifty_views_take_less_than_six_gigabytes():
    size = (OutputEncoding(1000, 20, "fp16").num_bytes() + 4) * 50 * 1_000_000
    assert size == 4_300_000_000


def test_a_score_beyond_fp16_is_refused():
    with pytest.raises(ConfigError, match=r"1e\+05, is beyond fp16; .* --cache-precision fp32"):
        OutputEncoding(2, 2, "fp16").encode(torch.tensor([[0.0, 1e5]]))
