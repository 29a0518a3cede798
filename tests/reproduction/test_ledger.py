"""The papers' rows: complete recipes, figures that agree, and what cannot be run."""

import csv
import tomllib
from collections import Counter
from pathlib import Path

import pytest

from selfdistill.core import ConfigError
from selfdistill.models import list_models
from selfdistill.models.cifar import NETWORKS
from selfdistill.models.yolov5 import SCALES
from selfdistill.recipe.published import FOLDER
from selfdistill.recipe.schema import Recipe, parse, read
from selfdistill.reproduction.ledger import (
    find_row,
    ledger,
    matching_rows,
    smoke_test_rows,
)
from selfdistill.reproduction.paper_row import FIGURES_SOURCES
from selfdistill.reproduction.reported_value import ReportedValue, parse_reported_value
from selfdistill.reproduction.reproduce import RESULT_COLUMNS, plan_runs

RECIPES = sorted(Path(__file__).parents[2].joinpath("recipes").glob("*.toml"))
ROWS = list(ledger().values())
RUNNING = [row for row in ROWS if not row.not_runnable_reason]


def test_all_rows_of_all_tables_are_there():
    tables = Counter(row.name.rsplit("/", 2)[0] for row in ROWS)
    # counted by hand in MUSE's tables: cells of a network and a method, where they hold a figure
    assert tables["muse/table1"] == (8 + 3 + 1) * 4
    assert tables["muse/table2"] == 8 + 7
    assert tables["muse/table3"] == 10 * 2
    assert tables["muse/table4"] == 4 * 3
    assert tables["muse/table5"] == 16 * 2
    assert tables["muse/table6"] == 7 * 2
    assert tables["muse/table7a"] == 4 + 6 * 4  # baselines are single networks
    assert tables["muse/table7b"] == 8 * 2
    systems = {
        "muse",
        "mimkd",
        "mixskd",
        "frskd",
        "srrl",
        "wcord",
        "sskd",
        "hsakd",
        "residual_kd",
        "lsp",
        "logit_standardization",
        "dist",
        "pskd",
        "nkd",
        "ttm",
        "reviewkd",
        "ofa",
        "mlkd",
        "dks",
        "deit",
    }
    assert {row.name.partition("/")[0] for row in ROWS} == systems


@pytest.mark.parametrize("row", RUNNING, ids=lambda row: row.name)
def test_a_row_that_runs_has_a_complete_recipe(row):
    recipe = tomllib.loads(row.to_toml())
    assert parse(recipe) == row.recipe()
    assert recipe["method"] == row.keys["method"]
    # what a paper's training is made of must not be left to defaults
    required = {
        "model",
        "data",
        "val_fraction",
        "epochs",
        "batch_size",
        "lr",
        "optimizer",
        "momentum",
    }
    required |= {"nesterov", "weight_decay", "lr_schedule"}
    assert required <= row.keys.keys()
    assert all(line.startswith("# ") for line in row.to_toml().split("\n\n")[0].splitlines())


def test_the_networks_exist():
    used = {model for row in RUNNING for model in (row.keys["model"], *row.keys.get("peers", ()))}
    known = {f"cifar/{name}" for name in NETWORKS}
    known |= {f"timm/resnet{depth}" for depth in (18, 34, 50)}
    assert used <= known | {f"yolov5/{scale}" for scale in SCALES}


@pytest.mark.slow
def test_the_networks_of_others_exist():
    used = {row.keys["model"] for row in RUNNING} | {row.keys.get("teacher") for row in RUNNING}
    others = {name for name in used if name and name.startswith(("timm/", "torchvision/"))}
    assert others <= set(list_models())


def test_who_cannot_be_run_says_why_and_has_no_recipe():
    row = find_row("frskd/segmentation/efficientdet_d0-voc/frskd")
    with pytest.raises(ConfigError, match="cannot be run: its networks"):
        row.recipe()
    with pytest.raises(ConfigError, match="cannot be run"):
        plan_runs(row, 1)
    assert len(RUNNING) < len(ROWS)


def test_figures_are_the_papers():
    row = find_row("muse/table1/resnet18/mi+si")
    assert row.published["student"] == ReportedValue(78.75, 0.31, 3)
    assert [str(f) for f in row.published.values()] == [
        "67.14 ± 0.42",
        "74.16 ± 0.13",
        "77.96 ± 0.29",
        "78.75 ± 0.31",
    ]
    assert str(find_row("mimkd/abstract/shufflenet_v2/baseline").published["student"]) == "69.8"
    assert find_row("muse/table7a/resnet20-resnet20/mi+si").published.keys() == {"average"}
    assert find_row("muse/table3/vgg19/mixsi").published == {"exit3": ReportedValue(69.26, None, 3)}


@pytest.mark.parametrize("row", [r for r in ROWS if r.same_run_as], ids=lambda row: row.name)
def test_the_same_run_has_the_same_figures(row):
    run = find_row(row.same_run_as)
    for predictor in row.published.keys() & run.published.keys():
        assert row.published[predictor].mean == run.published[predictor].mean
    assert row.published.keys() <= run.published.keys()
    assert row.run_name == run.name
    assert not run.same_run_as
    assert row.not_runnable_reason or row.recipe(2) == run.recipe(2)


@pytest.mark.parametrize(
    ("bigger", "smaller"),
    [("78.75 ± 0.31", ReportedValue(78.75, 0.31, 3)), ("0.549", ReportedValue(0.549, None, 3, 3))],
)
def test_a_printed_figure_comes_back(bigger, smaller):
    assert parse_reported_value(bigger, 3) == smaller
    assert str(smaller) == bigger


@pytest.mark.parametrize("text", ["", "78", "78.75±0.31", "about 78.75", "78.75 ± "])
def test_what_is_no_figure(text):
    with pytest.raises(ValueError, match="is no figure"):
        parse_reported_value(text)


def test_every_figure_says_where_it_was_read():
    assert {row.figures_source for row in ROWS} <= FIGURES_SOURCES.keys()
    assert all(row.epoch and row.title and row.source for row in ROWS)


def test_the_best_row_of_each_system_can_be_run():
    assert list(smoke_test_rows()) == [
        "muse",
        "mimkd",
        "mixskd",
        "frskd",
        "srrl",
        "wcord",
        "sskd",
        "hsakd",
        "dist",
        "pskd",
        "nkd",
        "ttm",
        "reviewkd",
        "mlkd",
        "dks",
    ]
    for system, row in smoke_test_rows().items():
        assert row.name.startswith(f"{system}/")
        assert row.recipe().method.partition("-")[0] == system


def test_a_teacher_comes_first_and_is_shared_by_all_seeds():
    row = find_row("muse/table7b/resnet56-resnet20/crd")
    teacher, *students = plan_runs(row, 3, Path("place"))
    assert teacher.row.run_name == "muse/table7a/resnet56/baseline"
    assert teacher.run_dir == Path("place/muse/table7a/resnet56/baseline/s0")
    assert {Path(run.recipe.teacher) for run in students} == {teacher.run_dir}
    assert [run.recipe.seed for run in students] == [0, 1, 2]
    assert [run.run_dir.name for run in students] == ["s0", "s1", "s2"]


def test_holding_out_images_is_another_run_with_another_teacher():
    row = find_row("muse/table7b/resnet56-resnet20/kd")
    teacher, student = plan_runs(row, 1, Path("place"), val_fraction=0.1)
    assert student.recipe.val_fraction == teacher.recipe.val_fraction == 0.1
    assert student.run_dir == Path("place/muse/table7b/resnet56-resnet20/kd/val0.1/s0")
    assert Path(student.recipe.teacher) == teacher.run_dir


# The CRD benchmark's, which MUSE's tables leave out.
OTHERS = {"cifar100-resnet56-resnet20-at.toml", "cifar100-resnet56-resnet20-nst.toml"}
WHERE = {"teacher": "", "teacher_model": "", "log_every_steps": 1}


def bare(recipe: Recipe) -> str:
    """All of a recipe but where its teacher lies; options are filled in."""
    return repr(sorted(recipe.model_copy(update=WHERE).model_dump().items()))


def test_the_recipes_are_rows():
    rows = {bare(row.recipe()): row for row in RUNNING}
    assert len(RECIPES) > len(OTHERS)
    for file in RECIPES:
        if file.name not in OTHERS:
            recipe = parse(read(file))
            assert bare(recipe) in rows, file.name
            assert bool(recipe.teacher) == bool(rows[bare(recipe)].teacher), file.name


def test_names_that_are_near():
    with pytest.raises(ConfigError, match=r"did you mean 'muse/table2/resnet18/mi\+si'"):
        find_row("muse/table2/resnet18/mi+s")
    with pytest.raises(ConfigError, match="no row matches 'muse/table9"):
        matching_rows("muse/table9*")


def test_patterns():
    assert len(matching_rows()) == len(ROWS)
    assert [row.name for row in matching_rows("table4/yolov5s")] == [
        f"muse/table4/yolov5s/{name}" for name in ("baseline", "mi+si", "mixsi")
    ]
    assert {row.name.split("/")[0] for row in matching_rows("*/resnet18/frskd")} == {
        "muse",
        "mixskd",
        "frskd",
    }


def test_our_own_figures_belong_to_rows():
    with (FOLDER / "ours.csv").open(encoding="utf-8", newline="") as stream:
        table = csv.DictReader(stream)
        assert tuple(table.fieldnames or ()) == RESULT_COLUMNS
        for line in table:
            row = find_row(line["row"])
            assert not row.same_run_as
            assert int(line["epochs"]) == row.recipe().epochs
            assert float(line["mean"]) > 0


@pytest.mark.parametrize("method", ["mi+si", "mixsi"])
@pytest.mark.parametrize("table", ["table1", "table5"])
def test_muse_differs_from_its_baseline_in_information_alone(table, method):
    names = (f"muse/{table}/resnet18/{method}", "muse/table5/resnet18/ce+kd")
    if table == "table5":
        names = (f"{names[0]}+ce+kd", names[1])
    muse, exits = (find_row(name).recipe() for name in names)
    shared = set(muse.options) & set(exits.options) - {"detach_last"}
    assert shared == {"supervised_weight", "soft_weight", "temperature", "bottleneck"}
    assert all(muse.options[key] == exits.options[key] for key in shared)
    keys = {"method", "options"}
    assert muse.model_dump(exclude=keys) == exits.model_dump(exclude=keys)
