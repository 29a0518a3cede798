import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from selfdistill.functional.pareto import pareto_front

choices = st.lists(st.tuples(st.integers(0, 9), st.none() | st.integers(0, 9)), max_size=8)


def test_a_dearer_choice_that_is_no_better_is_off_the_front():
    assert pareto_front([1, 2, 3, 4], [0.5, 0.4, 0.7, 0.7]) == [True, False, True, False]


def test_of_equal_costs_the_better_and_twins_both():
    assert pareto_front([1, 1, 1], [0.5, 0.6, 0.6]) == [False, True, True]


def test_without_a_score_there_is_no_place_on_it():
    assert pareto_front([1, 2], [None, 0.1]) == [False, True]


@given(choices)
def test_a_walk_from_cheap_to_dear_finds_the_same(result):
    """Reference: sorted by cost, and at the same cost the best first, only new bests are kept."""
    costs, scores = [c for c, _ in result], [s for _, s in result]
    best, kept = -np.inf, set()
    for cost, score in sorted((c, -s) for c, s in result if s is not None):
        if -score > best:
            best = -score
            kept.add((cost, best))
    assert pareto_front(costs, scores) == [choice in kept for choice in result]
