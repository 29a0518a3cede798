"""The first sentence about a study says what its figures allow, and no more."""

import pytest

from selfdistill.comparison.grid import plan_study
from selfdistill.comparison.results import RunOutcome, main_results, row_results
from selfdistill.comparison.rows import parse_rows
from selfdistill.comparison.verdict import study_verdict
from selfdistill.records.exit_scores import ExitScore

CE = (0.70, 0.71, 0.72, 0.71, 0.70)
CLEAR = (0.750, 0.770, 0.765, 0.762, 0.748)  # +4.8 to +6
SMALL = (0.713, 0.716, 0.729, 0.713, 0.712)  # +0.3 to +1.3: p is about 0.01
NOTHING = (0.71, 0.70, 0.725, 0.705, 0.70)
WORSE = (0.65, 0.67, 0.66, 0.655, 0.655)


def verdict(*, macs=20, rates=None, exit="student", test=True, **rows) -> str:
    study = plan_study(parse_rows(rows), tuple(range(len(next(iter(rows.values()))))), exit=exit)
    outcomes = []
    for row, seed in study.cells:
        score = {"ce": CE, **rows}[row][seed]
        exits = [ExitScore("student", 1, 20 if row == "ce" else macs, score, score * test or None)]
        if row != "ce":
            exits.insert(0, ExitScore("exit1", 1, 5, score, score * test or None))
        rate = (rates or {}).get(row)
        rate = rate[seed] if isinstance(rate, tuple) else rate
        outcomes.append(RunOutcome(row, seed, exits, throughput=rate))
    return study_verdict(study, main_results(study, row_results(study, outcomes)), outcomes)


def test_gain_interval_noise_n_and_both_costs():
    text = verdict(muse=CLEAR, rates={"ce": 300.0, "muse": 200.0})
    assert text.startswith("muse helps: +5.10 points of test accuracy over ce (95 % interval +4.")
    assert text.endswith(
        ", 5 seeds, beyond noise), at 1.50 times the training time per image, and the same "
        "multiply-adds in inference."
    )


def test_a_time_that_seeds_do_not_agree_on_is_not_told():
    rates = {"ce": (300.0,) * 5, "muse": (200.0, 205.0, 140.0, 202.0, 198.0)}
    text = verdict(muse=CLEAR, rates=rates)
    assert "training time" not in text
    assert text.endswith("beyond noise), at the same multiply-adds in inference.")
    slow = {"ce": (300.0, 100.0) + (300.0,) * 3, "muse": (200.0, 70.0) + (205.0,) * 3}
    assert "1.46 times the training time" in verdict(muse=CLEAR, rates=slow)  # pairs agree


def test_another_inference_cost_and_one_that_no_run_recorded():
    assert verdict(muse=CLEAR, macs=30).endswith("at 150 % of the multiply-adds in inference.")
    assert verdict(muse=CLEAR, macs=0).endswith("an inference cost that is not recorded.")


def test_an_exit_is_named_with_its_cost():
    text = verdict(muse=CLEAR, exit="exit1")
    assert "points of test accuracy at exit 1 over ce" in text
    assert text.endswith("at 25 % of the multiply-adds in inference.")


def test_validation_images_are_named():
    assert "points of validation accuracy over" in verdict(muse=CLEAR, test=False)


@pytest.mark.parametrize(
    ("scores", "opening"),
    [(NOTHING, "muse does not help beyond noise: "), (WORSE, "muse harms: −5.00 points")],
)
def test_one_that_does_not_help(scores, opening):
    text = verdict(muse=scores)
    assert text.startswith(opening)
    assert "best of" not in text


@pytest.mark.parametrize(
    ("n", "opening"), [(1, "One seed cannot tell"), (2, "Two seeds cannot tell")]
)
def test_too_few_seeds(n, opening):
    assert verdict(muse=CLEAR[:n]).startswith(f"{opening} whether muse helps: +5")
    assert f"({n} seed" in verdict(muse=CLEAR[:n])
    assert verdict(muse=CLEAR[:n], byot=NOTHING[:n]).startswith(
        f"{opening} what helps; the best of 2 so far is muse: "
    )


def test_differences_that_are_all_alike_tell_nothing():
    alike = [score + 0.01 for score in CE]
    assert verdict(muse=alike).startswith("These 5 seeds cannot tell whether muse helps: +1.00")


def test_the_best_of_several_is_optimistic():
    text = verdict(muse=CLEAR, byot=NOTHING, cskd=SMALL)
    assert text.startswith("muse helps: ")
    assert "It is the best of 3, judged by Holm's correction" in text


def test_what_chance_may_have_found_among_many():
    assert verdict(muse=SMALL).startswith("muse helps: +0.86 points")
    many = dict.fromkeys(("byot", "cskd", "frskd", "sad", "exits", "one", "ddgsd"), NOTHING)
    text = verdict(muse=SMALL, **many)
    assert text.startswith("muse may help, beyond noise by itself but not among 8 rows: ")
    assert "only other seeds say what muse is worth" in text


def test_none_of_several_helps():
    text = verdict(byot=NOTHING, muse=WORSE)
    assert text.startswith("Nothing helps beyond noise; the best of 2 is byot: +0.00 points")
    assert "looks better than it is" not in text


def test_nothing_to_compare():
    study = plan_study(parse_rows(["muse"]), (0,))
    text = study_verdict(study, [], [RunOutcome("ce", 0, []), RunOutcome("muse", 0, [])])
    assert text == "Nothing can be said yet: no row has a seed in common with ce."
