import pytest
from hypothesis import given
from hypothesis import strategies as st

from selfdistill.comparison.rows import ComparisonRow, parse_rows, parse_seeds
from selfdistill.core import ConfigError


@pytest.mark.parametrize(
    ("text", "rows"),
    [
        ("muse", [ComparisonRow("muse", "muse", {})]),
        ("muse,byot", [ComparisonRow("muse", "muse", {}), ComparisonRow("byot", "byot", {})]),
        ("muse:combine=mul", [ComparisonRow("muse-combine-mul", "muse", {"combine": "mul"})]),
        (
            "muse:combine=mul,soft_weight=0.2,byot",
            [
                ComparisonRow(
                    "muse-combine-mul-soft_weight-0.2",
                    "muse",
                    {"combine": "mul", "soft_weight": 0.2},
                ),
                ComparisonRow("byot", "byot", {}),
            ],
        ),
        ("strong = muse:information=1", [ComparisonRow("strong", "muse", {"information": 1})]),
        ("muse+cskd", [ComparisonRow("muse+cskd", "muse+cskd", {})]),
        # a label and an option look alike; what the method knows is an option
        (
            "muse:soft_weight=0.2,other=byot",
            [*parse_rows(["muse:soft_weight=0.2"]), ComparisonRow("other", "byot", {})],
        ),
        (
            "exits:soft_weight=0.2,discrepancy=vid",
            [
                ComparisonRow(
                    "exits-soft_weight-0.2-discrepancy-vid",
                    "exits",
                    {"soft_weight": 0.2, "discrepancy": "vid"},
                )
            ],
        ),
        (
            "kd:teacher=runs/a",
            [ComparisonRow("kd-teacher-runs_a", "kd", {"teacher": "runs/a"})],
        ),
    ],
)
def test_rows_are_parsed(text, rows):
    assert parse_rows([text]) == rows


def test_several_texts_are_one_list():
    assert parse_rows(["muse", "byot,sad"]) == parse_rows(["muse,byot,sad"])
    assert parse_rows([]) == []


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("mus", "no method 'mus' (did you mean 'muse'?)"),
        ("byot,mus:combine=mul", "no method 'mus'"),
        ("muse,,byot", "empty row"),
        ("", "empty row"),
        ("muse:combine", "has 'combine' where key=value is due"),
        ("muse:", "has '' where key=value is due"),
        ("a b=muse", "'a b' is no name for a row"),
        ("../up=muse", "'../up' is no name for a row"),
        ("=muse", "is no name for a row"),
        ("soft_weight=0.3", "no method '0.3'"),
    ],
)
def test_what_is_no_row(text, sentence):
    with pytest.raises(ConfigError) as fault:
        parse_rows([text])
    assert sentence in str(fault.value)


@pytest.mark.parametrize(
    ("text", "seeds"),
    [
        ("0-4", (0, 1, 2, 3, 4)),
        ("3,1, 2", (1, 2, 3)),
        ("0-2,2-3,9", (0, 1, 2, 3, 9)),
        ("5", (5,)),
        (7, (7,)),
        ([2, 0], (0, 2)),
        (range(3), (0, 1, 2)),
    ],
)
def test_seeds(text, seeds):
    assert parse_seeds(text) == seeds


@pytest.mark.parametrize("text", ["", "a", "4-0", "-1", "1.5", "0,,1", "0-", [0.5], [-1], []])
def test_what_are_no_seeds(text):
    with pytest.raises(ConfigError, match="seeds are written 0-4 or 0,1,2"):
        parse_seeds(text)


def test_a_slip_of_the_finger():
    with pytest.raises(ConfigError, match="10,001 seeds; that is a slip"):
        parse_seeds("0-10000")


@given(st.sets(st.integers(0, 10**6), min_size=1, max_size=9))
def test_numbers_come_back(numbers):
    assert parse_seeds(",".join(map(str, numbers))) == tuple(sorted(numbers))
