import tomllib

import pytest
import tomli_w

from selfdistill.comparison.grid import (
    Study,
    extend_study,
    plan_study,
    study_from_dict,
)
from selfdistill.comparison.rows import parse_rows
from selfdistill.core import ArtifactError, ConfigError
from selfdistill.recipe.schema import parse
from selfdistill.runs.paths import first_difference


def planned(text="muse", seeds=(0, 1), **changes) -> Study:
    return plan_study(parse_rows([text] if text else []), seeds, **changes)


def test_the_baseline_is_added_first_and_shares_all_but_the_method():
    study = planned("muse,byot", keys={"epochs": 3, "lr": 0.2})
    assert list(study.rows) == ["ce", "muse", "byot"]
    assert study.baseline == "ce"
    plain = study.recipe("ce", 1)
    assert (plain.epochs, plain.lr, plain.seed) == (3, 0.2, 1)
    for row in study.rows:
        same = study.recipe(row, 1).model_copy(update={"method": "ce", "options": {}})
        assert first_difference(plain, same) == ""


def test_a_baseline_that_is_named_is_not_added_again():
    assert list(planned("muse,ce").rows) == ["ce", "muse"]
    assert list(planned("muse,plain=ce").rows) == ["plain", "muse"]


def test_without_rows_the_recipes_own_method():
    assert list(planned("").rows) == ["ce", "frskd"]
    assert list(planned("", file={"task": "detection"}).rows) == ["ce"]
    assert list(planned("", file={"method": "byot"}).rows) == ["ce", "byot"]
    assert list(planned("", file={"method": "ce"}).rows) == ["ce"]


def test_seeds_are_the_outer_loop():
    assert planned().cells == [("ce", 0), ("muse", 0), ("ce", 1), ("muse", 1)]


def test_options_go_to_whoever_has_them():
    study = planned("muse,byot,sad", keys={"temperature": 5})
    with_it = [n for n, r in study.rows.items() if r.options.get("temperature") == 5]
    assert with_it == ["muse", "byot"]


def test_a_row_has_the_last_word():
    file = {"method": "muse", "options": {"combine": "mul", "soft_weight": 0.1, "critic": "concat"}}
    text = "muse,own=muse:combine=add,byot"
    study = planned(text, file=file, keys={"soft_weight": 0.2})
    rows = {name: recipe.options for name, recipe in study.rows.items()}
    assert (rows["muse"]["combine"], rows["muse"]["soft_weight"]) == ("mul", 0.2)
    assert (rows["own"]["combine"], rows["own"]["critic"]) == ("add", "concat")
    assert "combine" not in rows["byot"]


def test_a_teacher_goes_to_those_who_learn_from_one():
    study = planned("kd,muse,dml", keys={"teacher": "runs/t", "peers": ["cifar/resnet8"]})
    assert {n: r.teacher for n, r in study.rows.items() if r.teacher} == {"kd": "runs/t"}
    assert {n: r.peers for n, r in study.rows.items() if r.peers} == {"dml": ("cifar/resnet8",)}
    assert planned("kd:teacher=runs/own").rows["kd-teacher-runs_own"].teacher == "runs/own"


def test_a_row_cuts_the_network_of_all_rows():
    model, cut = "cifar/resnet20", "cifar/resnet20@layer2+bottleneck"
    study = planned(f"short=ce:model={cut},exits:model={cut}", keys={"model": model})
    assert study.baseline == "ce"  # the whole network, which was not named
    models = {name: recipe.model for name, recipe in study.rows.items()}
    assert models == {"ce": model, "short": cut, f"exits-model-{cut.translate(SIGNS)}": cut}
    assert study.shared["model"] == model
    content = study.to_dict()
    assert ["model" in row for row in content["rows"].values()] == [False, True, True]
    assert study_from_dict(tomllib.loads(tomli_w.dumps(content)), "x") == study
    whole = planned(f"long=ce:model={model}", keys={"model": cut})
    assert {name: recipe.model for name, recipe in whole.rows.items()} == {"ce": cut, "long": model}
    assert "short" in extend_study(study, planned("muse", keys={"model": model}), "x").rows


SIGNS = str.maketrans("/@", "__")


@pytest.mark.parametrize("model", ["cifar/resnet8", "cifar/resnet8@layer2", "cifar/resnet20", 3])
def test_a_row_has_no_other_network(model):
    with pytest.raises(ConfigError, match=r"is to be cifar/resnet20, cut elsewhere .*=cifar/resn"):
        planned(f"short=ce:model={model}", keys={"model": "cifar/resnet20"})


@pytest.mark.parametrize(
    ("text", "changes", "sentence"),
    [
        ("muse,muse", {}, "two rows are named 'muse'"),
        ("muse,MUSE=byot", {}, "two rows are named 'MUSE'"),
        ("muse,again=muse", {}, "rows 'muse' and 'again' are the same"),
        ("muse:lr=0.5", {}, "'lr' of row 'muse-lr-0.5' belongs to the recipe that all rows share"),
        ("muse:foo=1", {}, "method 'muse' has no option 'foo'"),
        ("muse:combine=div", {}, "combine = 'div' does not fit"),
        ("muse", {"keys": {"epoch": 3}}, "has 'epoch' (did you mean 'epochs'?)"),
        ("muse", {"keys": {"seed": 3}}, "'seed' of a comparison is given by --seeds"),
        ("muse", {"keys": {"method": "byot"}}, "given by --methods"),
        ("muse", {"keys": {"epochs": 0}}, "epochs = 0 does not fit"),
        ("muse", {"keys": {"teacher": "x"}}, "no row has a use for teacher; these methods have:"),
        ("muse", {"keys": {"peers": ["x"]}}, "no row has a use for peers"),
        ("muse", {"file": {"epoch": 3}}, "no key 'epoch'"),
        ("muse", {"file": {"options": 3}}, "[options] of a recipe is a table"),
        ("kd", {}, "row 'kd' learns from a teacher: give --teacher"),
    ],
)
def test_refused(text, changes, sentence):
    with pytest.raises(ConfigError) as fault:
        planned(text, **changes)
    assert sentence in str(fault.value)


def test_a_study_comes_back_from_its_file():
    keys = {"teacher": "t", "peers": ["cifar/resnet8"], "lr_schedule": "step", "milestones": [1, 2]}
    study = planned("kd,dml,muse+cskd:muse.soft_weight=0.2", keys=keys, exit="exit2")
    text = tomli_w.dumps(study.to_dict())
    assert study_from_dict(tomllib.loads(text), "x") == study
    again = [parse({**study.shared, **row}) for row in tomllib.loads(text)["rows"].values()]
    assert again == list(study.rows.values())


@pytest.mark.parametrize(
    "change",
    [
        {"rows": {}},
        {"rows": 3},
        {"seeds": []},
        {"seeds": ["a"]},
        {"recipe": {"epochs": 0}},
        {"rows": {"muse": {"method": "muse"}}},
        {"exit": None, "seeds": None},
    ],
)
def test_a_file_that_describes_no_study(change):
    with pytest.raises(ArtifactError, match=r"there/study\.toml describes no study"):
        study_from_dict(planned().to_dict() | change, "there/study.toml")


def test_a_file_of_a_newer_version():
    with pytest.raises(ArtifactError, match="newer version"):
        study_from_dict(planned().to_dict() | {"version": 2}, "x")


def test_more_rows_and_seeds_are_added():
    study = extend_study(planned("muse", (0, 1)), planned("byot", (1, 2)), "x")
    assert list(study.rows) == ["ce", "muse", "byot"]
    assert study.seeds == (0, 1, 2)


@pytest.mark.parametrize(
    ("requested", "sentence"),
    [
        (planned(keys={"epochs": 5}), "another epochs (30, not 5)"),
        (planned("muse=muse:soft_weight=0.2"), "another options"),
        (planned("muse,plain=ce"), "the baseline of there is named 'ce', not 'plain'"),
    ],
)
def test_another_recipe_is_refused(requested, sentence):
    with pytest.raises(ConfigError) as fault:
        extend_study(planned(), requested, "there")
    assert sentence in str(fault.value)


def test_where_a_run_is_made_may_change():
    assert (
        extend_study(planned(), planned(keys={"device": "cpu", "num_workers": 0}), "x") == planned()
    )


@pytest.mark.parametrize(
    "row", ["open_set=joint,extra=folder:pool", "extra=folder:pool,open_set=joint"]
)
def test_extra_images_go_to_who_learns_from_them(row):
    study = planned(f"open=srrl:{row},byot", keys={"teacher": "runs/own"})
    assert {name: recipe.extra for name, recipe in study.rows.items()} == {
        "ce": "", "open": "folder:pool", "byot": ""
    }  # fmt: skip
    assert study_from_dict(study.to_dict(), "here") == study
    shared = planned("srrl,byot", keys={"teacher": "runs/own", "extra": "npz:a.npz"})
    assert [recipe.extra for recipe in shared.rows.values()] == ["", "npz:a.npz", ""]
    with pytest.raises(
        ConfigError, match="no row has a use for extra; these methods have: kd3, srrl"
    ):
        planned("byot", keys={"extra": "npz:a.npz"})
    with pytest.raises(
        ConfigError, match="'extra' of row 'byot-extra-npz_a' belongs to the recipe"
    ):
        planned("byot:extra=npz:a")
