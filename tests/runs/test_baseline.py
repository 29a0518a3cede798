"""Finding the run without distillation, and comparing with it image by image."""

import itertools

import numpy as np
import pytest
import torch
from scipy import stats

from selfdistill.core import ConfigError
from selfdistill.functional.statistics import Significance, paired_difference
from selfdistill.recipe.document import METHOD_KEYS
from selfdistill.recipe.schema import Recipe, parse, write
from selfdistill.runs.baseline import (
    baseline_command,
    check_comparable,
    first_mismatch,
    matched_baseline,
)
from selfdistill.runs.paths import load_recipe


def finished_run(place, method="ce", **keys):
    place.mkdir(parents=True)
    (place / "recipe.toml").write_text(write(parse({"method": method, **keys})))
    (place / "exits.csv").touch()
    return place


@pytest.fixture
def mine(tmp_path):
    return finished_run(tmp_path / "mine", "muse", epochs=5, taps="layer1,layer4", seed=2)


def test_the_run_beside_it_with_the_same_recipe(mine):
    assert matched_baseline(mine) is None
    finished_run(mine.with_name("longer"), epochs=6, seed=2)
    finished_run(mine.with_name("distilled"), "byot", epochs=5, seed=2)
    (mine.with_name("half") / "checkpoints").mkdir(parents=True)
    (mine.with_name("broken")).mkdir()
    (mine.with_name("broken") / "exits.csv").touch()
    assert matched_baseline(mine) is None
    finished_run(
        mine.with_name("plain"), epochs=5, seed=2, device="cpu", num_workers=0, log_every_steps=3
    )
    assert matched_baseline(mine) == mine.with_name("plain")


def test_the_same_seed_comes_first_then_the_lowest(mine):
    for seed in (4, 3):
        finished_run(mine.with_name(f"a{seed}"), epochs=5, seed=seed)
    assert matched_baseline(mine).name == "a3"
    finished_run(mine.with_name("z2"), epochs=5, seed=2)
    assert matched_baseline(mine).name == "z2"


def test_a_path_is_told_as_it_was_given(mine, monkeypatch):
    finished_run(mine.with_name("plain"), epochs=5, seed=2)
    monkeypatch.chdir(mine)
    assert str(matched_baseline(mine)) == str(mine.with_name("plain"))
    monkeypatch.chdir(mine.parent)
    assert matched_baseline(type(mine)("mine")) == type(mine)("plain")


def test_an_unfinished_one_is_not_taken(mine):
    (finished_run(mine.with_name("plain"), epochs=5, seed=2) / "exits.csv").unlink()
    assert matched_baseline(mine) is None
    with pytest.raises(ConfigError, match=r"plain is not finished; selfdistill train --resume "):
        check_comparable(mine, load_recipe(mine), mine.with_name("plain"))


def test_one_of_other_images_cannot_be_compared(mine):
    other = finished_run(mine.with_name("other"), data="cifar100")
    with pytest.raises(ConfigError, match="its data is 'cifar100', not 'digits'"):
        check_comparable(mine, load_recipe(mine), other)


def test_one_of_another_recipe_is_compared_with_a_word(mine):
    other = finished_run(mine.with_name("other"), epochs=9)
    [said] = check_comparable(mine, load_recipe(mine), other)
    assert said.endswith("other is no matched baseline: it has another epochs (9, not 5)")
    plain = finished_run(mine.with_name("plain"), epochs=5)
    assert check_comparable(mine, load_recipe(mine), plain) == []


def test_a_baseline_needs_none(mine):
    assert "--method ce --out " in baseline_command(mine)
    assert baseline_command(finished_run(mine.with_name("plain"))) == ""


def marks(won, lost, images=1000):
    ours = torch.zeros(images, dtype=torch.bool)
    theirs = ours.clone()
    ours[:won], theirs[won : won + lost] = True, True
    return ours, theirs


def test_the_difference_is_that_of_the_accuracies():
    draw = np.random.default_rng(0)
    ours, theirs = (torch.tensor(draw.random(500) < share) for share in (0.8, 0.7))
    found = paired_difference(ours, theirs)
    assert found.mean == pytest.approx((ours.sum() - theirs.sum()).item() / 500)
    back = paired_difference(theirs, ours)
    assert (-back.mean, -back.interval.high) == pytest.approx((found.mean, found.interval.low))


def test_the_verdict_is_mcnemars_but_on_the_border():
    for won, lost in itertools.product(range(30), repeat=2):
        if won + lost == 0:
            continue
        p = stats.binomtest(won, won + lost).pvalue
        beyond = paired_difference(*marks(won, lost)).significance is Significance.SIGNIFICANT
        if not 0.03 < p < 0.08:
            assert beyond == (p < 0.05), (won, lost, p)


@pytest.mark.parametrize("shares", [(0.1, 0.1), (0.05, 0.15), (0.02, 0.02), (0.3, 0.1)])
def test_the_interval_covers_the_truth(shares):
    """Over all that could have happened, each by its probability."""
    images, covered = 60, 0.0
    chances = stats.multinomial(images, [*shares, 1 - sum(shares)])
    for won, lost in itertools.product(range(images + 1), repeat=2):
        chance = chances.pmf([won, lost, images - won - lost])  # 0 of the impossible
        if chance > 1e-7:
            interval = paired_difference(*marks(won, lost, images)).interval
            covered += chance * interval.contains(shares[0] - shares[1])
    assert covered > 0.94


def test_no_difference_at_all_is_within_noise():
    found = paired_difference(*marks(0, 0))
    assert found.mean == 0
    assert found.significance is Significance.INCONCLUSIVE


@pytest.mark.parametrize("key", METHOD_KEYS)
def test_keys_of_a_method_may_differ(key):
    value = {"options": {"soft_weight": 0.5}, "peers": ("cifar/resnet8",)}
    recipe = Recipe(**{key: value.get(key, 64 if key == "teacher_image_size" else "x")})
    assert first_mismatch(recipe, Recipe()) == ""
