"""Presets: which values hold for what is trained, and what goes before them."""

import warnings

import pytest

from selfdistill.comparison.grid import plan_study
from selfdistill.comparison.rows import parse_rows
from selfdistill.core import METHODS, ConfigError
from selfdistill.recipe.fields import Recipe
from selfdistill.recipe.presets import (
    PRESET_KEYS,
    describe_preset,
    network_family,
    preset_table,
    resolve_preset,
    with_preset,
)
from selfdistill.recipe.published import runnable_rows
from selfdistill.recipe.schema import parse, write
from selfdistill.reproduction.ledger import ledger

WEIGHTS = {"weights": "pretrained", "model": "timm/resnet18"}


def resolved(**keys):
    return parse(with_preset({}, keys))


def test_without_weights_all_is_as_the_fields_say():
    recipe = resolved(method="ce")
    assert recipe.preset == "scratch"
    assert recipe.model_copy(update={"preset": "auto"}) == parse({"method": "ce"})
    assert describe_preset(recipe) == ""


def test_weights_mean_fine_tuning():
    recipe = resolved(method="ce", **WEIGHTS)
    assert (recipe.preset, recipe.lr, recipe.warmup_epochs) == ("finetune", 0.01, 1.0)
    assert describe_preset(recipe).startswith(
        "finetune (classification, convolutional network, initial weights): lr 0.01, "
    )


@pytest.mark.parametrize("keys", [{"model": "timm/resnet18"}, {}])
def test_fine_tuning_of_random_weights_is_warned_of(keys):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        resolved(method="ce", preset="finetune", **WEIGHTS)
        resolved(method="ce", preset="finetune", model="MyModule")  # whose weights are its own
        resolved(method="ce", **keys)
    with pytest.warns(UserWarning, match="for a trained network, and .* random weights"):
        resolved(method="ce", preset="finetune", **keys)


def test_heads_on_a_network_that_stays_are_trained_from_scratch():
    name = next(n for n in METHODS if METHODS[n].needs.trained_student)
    assert resolved(method=name, **WEIGHTS).preset == "scratch"


@pytest.mark.parametrize("method", ["feature-kd", "kd3", "cskd", "mixskd", "crd"])
def test_a_preset_mixes_no_images_for_methods_that_cannot(method):
    classes = METHODS[method]
    strong = with_preset({}, {"method": method, "preset": "strong"})
    mixing = {key for key in ("mixup", "cutmix") if strong.get(key)}
    assert bool(mixing) == classes.needs.mixtures
    plain = with_preset({}, {"method": "ce", "preset": "strong"})
    assert {key for key in ("mixup", "cutmix") if plain.get(key)} == {"mixup", "cutmix"}
    assert "label_smoothing" in plain
    assert ("label_smoothing" in strong) == (method != "feature-kd")  # which is of no class


def test_families_and_tasks_have_their_own():
    vit = resolved(method="ce", model="timm/vit_tiny_patch16_224", weights="pretrained")
    assert (vit.optimizer, vit.layer_decay, vit.norm_decay) == ("adamw", 0.75, False)
    scenes = resolved(method="ce", task="segmentation", **WEIGHTS)
    assert (scenes.lr, scenes.head_lr_factor) == (0.01, 10.0)


@pytest.mark.parametrize("keys", [{}, WEIGHTS, {"preset": "strong"}])
def test_large_images_are_taken_in_four_passes(keys):
    def passes(task, **more):
        return resolved(method="ce", task=task, **{**keys, **more}).accumulation_steps

    for task in ("detection", "segmentation", "clips"):
        assert passes(task) == passes(task, batch_size=64) == 4
        assert passes(task, batch_size=6) == passes(task, accumulation_steps=1) == 1
    assert passes("classification") == 1
    assert "accumulation_steps 4" in describe_preset(resolved(method="ce", task="detection"))


@pytest.mark.parametrize(
    ("model", "family"),
    [
        ("timm/vit_base_patch16_224.mae", "transformer"),
        ("torchvision/swin_t", "transformer"),
        ("timm/convnext_tiny", "transformer"),
        ("timm/flexivit_small", "transformer"),
        ("timm/tiny_vit_5m_224", "transformer"),
        ("timm/hiera_tiny_224", "transformer"),
        ("timm/samvit_base_patch16", "transformer"),
        ("timm/levit_128", "convolutional"),
        ("timm/resnet18", "convolutional"),
        ("timm/deit_tiny_distilled_patch16_224", "transformer"),
        ("cifar/resnet10_w16", "convolutional"),
        ("MyNetwork", "convolutional"),
        ("yolov5/n", "convolutional"),
    ],
)
def test_family_of_a_name(model, family):
    assert network_family(model) == family


def test_what_is_given_goes_before():
    recipe = resolved(method="ce", lr=0.3, **WEIGHTS)
    assert (recipe.lr, recipe.warmup_epochs) == (0.3, 1.0)
    assert "given otherwise: lr" in describe_preset(recipe)
    file = {"method": "ce", "lr": 0.3, **WEIGHTS}
    assert with_preset(file, {})["lr"] == 0.3
    assert with_preset(file, {"preset": "finetune"})["lr"] == 0.01
    assert with_preset(file, {"preset": "finetune", "lr": 0.2})["lr"] == 0.2
    assert with_preset({**file, "preset": "finetune"}, {})["lr"] == 0.3


def test_mixtures_are_left_out_where_a_method_reads_one_class():
    assert resolved(method="muse", preset="strong").mixup == 0.2
    nkd = resolved(method="uskd", preset="strong")
    assert (nkd.mixup, nkd.cutmix, nkd.auto_augment) == (0.0, 0.0, "trivial")
    rows = plan_study(parse_rows(["uskd", "muse"]), (0,), keys={"preset": "strong"}).rows
    assert {row.mixup for row in rows.values()} == {0.0}
    scenes = resolved(method="ce", preset="strong", task="segmentation")
    assert (scenes.auto_augment, scenes.mixup, scenes.label_smoothing) == ("trivial", 0.0, 0.0)
    boxes = resolved(method="ce", preset="strong", task="detection")
    assert (boxes.auto_augment, boxes.erase_probability) == ("off", 0.0)
    yolov5 = {  # data/hyps/hyp.scratch-low.yaml of its release 6.0: hsv_*, translate, scale, mosaic
        "hsv_jitter": (0.015, 0.7, 0.4), "shift": 0.1, "scale_jitter": 0.5,
        "mosaic_probability": 1.0,
    }  # fmt: skip
    assert boxes.model_dump().items() >= yolov5.items()
    assert "hsv_jitter 0.015,0.7,0.4" in describe_preset(boxes)
    assert scenes.mosaic_probability == resolved(method="ce", task="detection").scale_jitter == 0


def test_a_kept_recipe_resolves_to_itself():
    for keys in ({}, WEIGHTS, {"preset": "strong", **WEIGHTS}, {"preset": "paper"}):
        recipe = resolved(method="muse", **keys)
        kept = dict(recipe.model_dump())
        assert parse(with_preset(kept, {})) == recipe
        assert parse(kept) == recipe
        assert f'preset = "{recipe.preset}"' in write(recipe)


@pytest.mark.parametrize(("epochs", "warm"), [(1, 0.1), (5, 0.5), (30, 1.0), (300, 1.0)])
def test_a_warm_up_is_a_tenth_of_the_run_at_most(epochs, warm):
    assert resolved(method="ce", epochs=epochs, **WEIGHTS).warmup_epochs == pytest.approx(warm)


def test_a_papers_recipe_is_that_of_its_row():
    recipe = resolved(method="muse", preset="paper", data="cifar100", model="cifar/resnet18")
    row = ledger()[describe_preset(recipe).split("row ")[1].split(")")[0]]
    assert row.name.startswith("muse/")
    assert row.keys["model"] == "cifar/resnet18"
    assert (recipe.lr, recipe.milestones, recipe.batch_size) == (0.1, (75, 130, 180), 128)
    for key, value in row.keys["options"].items():
        assert recipe.options[key] == value
    assert resolved(method="muse", preset="paper", lr=0.2).lr == 0.2


def test_the_option_of_a_user_goes_before_the_papers():
    name = next(n for n, keys in runnable_rows().items() if keys.get("options"))
    keys = runnable_rows()[name]
    option, value = next((k, v) for k, v in keys["options"].items() if isinstance(v, float))
    chosen = with_preset({}, {"method": keys["method"], "preset": "paper", option: value + 1})
    assert chosen["options"][option] == value + 1


def test_a_method_without_a_row_is_refused():
    known = {keys["method"] for keys in runnable_rows().values()}
    unknown = next(name for name in METHODS if name not in known)
    with pytest.raises(ConfigError, match=f"no paper's recipe is known for method '{unknown}'"):
        resolve_preset({"method": unknown, "preset": "paper"})
    with pytest.raises(ConfigError, match="and task 'clips'"):
        resolve_preset({"method": "muse", "task": "clips", "preset": "paper"})


def test_rows_are_those_of_the_ledger():
    for name, keys in runnable_rows().items():
        assert ledger()[name].keys == {
            k: v for k, v in keys.items() if k not in ("deviations", "stated")
        }


@pytest.mark.parametrize("name", ["fine-tune", "", "Scratch", 3])
def test_an_unknown_preset_is_refused(name):
    with pytest.raises(ConfigError, match="preset"):
        resolved(preset=name)


def test_rules_set_what_a_preset_may():
    for rule in preset_table().rule:
        assert rule.values.keys() <= PRESET_KEYS
        assert rule.family in {None, *preset_table().families}
        Recipe.model_validate(rule.values)


def test_rows_of_a_comparison_share_one_preset():
    rows = parse_rows(["byot", "muse"])
    study = plan_study(rows, (0,), keys={"preset": "finetune", "epochs": 7, **WEIGHTS})
    assert {r.lr for r in study.rows.values()} == {0.01}
    assert {r.preset for r in study.rows.values()} == {"finetune"}
    paper = plan_study(rows, (0,), file={"lr": 0.7}, keys={"preset": "paper"})
    assert {r.lr for r in paper.rows.values()} == {0.1}
    assert len({r.milestones for r in paper.rows.values()}) == 1
    assert plan_study(rows, (0,), file={"lr": 0.7}).rows["muse"].lr == 0.7


def test_the_weights_of_a_run_bring_its_network(tmp_path):
    (tmp_path / "recipe.toml").write_text('model = "timm/vit_tiny_patch16_224"\n')
    recipe = resolved(method="ce", weights=str(tmp_path))
    assert (recipe.model, recipe.optimizer) == ("timm/vit_tiny_patch16_224", "adamw")
    assert resolved(method="ce", weights=str(tmp_path), model="cifar/resnet8").optimizer == "sgd"
    (tmp_path / "recipe.toml").write_text("model = 3\n")
    assert (
        resolved(method="ce", weights=str(tmp_path)).model == Recipe.model_fields["model"].default
    )


@pytest.mark.parametrize(
    ("file", "keys", "sentence"),
    [
        ({}, {"milestones": [3]}, "milestones are of lr_schedule 'step', and this one is 'cosine'"),
        ({"lr_schedule": "constant"}, {"milestones": [3]}, "this one is 'constant'"),
        ({}, {"lr_schedule": "step"}, "there are none; give milestones"),
        ({"milestones": []}, {"lr_schedule": "step"}, "there are none; give milestones"),
    ],
)
def test_a_step_schedule_and_its_milestones_go_together(file, keys, sentence):
    with pytest.raises(ConfigError, match=sentence):
        with_preset(file, keys)


def test_another_schedule_passes_over_the_milestones_of_a_file():
    file = {"lr_schedule": "step", "milestones": [3]}
    assert parse(with_preset(file, {})).milestones == (3,)
    assert parse(with_preset(file, {"lr_schedule": "cosine"})).lr_schedule == "cosine"
    assert parse(with_preset({"lr_schedule": "step"}, {"milestones": [3]})).lr_schedule == "step"


def test_a_papers_options_go_before_those_of_a_file_too():
    own = {"critic": "global", "bottleneck": "slim", "critic_width": 8}
    file = {"method": "muse", "model": "cifar/resnet18", "data": "cifar100", "options": own}
    chosen = parse(with_preset(file, {"preset": "paper"}))
    assert (chosen.options["critic"], chosen.options["bottleneck"]) == ("concat", "byot")
    assert chosen.options["critic_width"] == 8  # no row says anything of it
    given = parse(with_preset(file, {"preset": "paper", "critic": "separable"}))
    assert given.options["critic"] == "separable"
    assert "; given otherwise: critic" in describe_preset(given)
    nested = parse(with_preset(file, {"preset": "paper", "options": {"critic": "separable"}}))
    assert nested.options["critic"] == "separable"


@pytest.mark.parametrize(
    ("file", "keys", "options"),
    [
        ({"method": "muse", "options": {"combine": "mul"}}, {"method": "ce"}, {}),
        ({"method": "muse", "options": {"combine": "mul"}}, {"method": "muse"}, {"combine": "mul"}),
        ({"method": "muse", "options": {"combine": "mul"}}, {}, {"combine": "mul"}),
        ({"method": "kd", "teacher": "runs/t"}, {"method": "ce"}, {}),
        ({"method": "dml", "peers": ["cifar/resnet8"]}, {"method": "exits"}, {}),
        (
            {"method": "kd", "options": {"temperature": 9.0}},
            {"method": "cskd", "temperature": 3.0},
            {"temperature": 3.0},
        ),
    ],
)
def test_another_method_than_the_files_has_none_of_its_options(file, keys, options):
    chosen = parse(with_preset(file, keys))
    assert {key: chosen.options[key] for key in options} == options
    assert not chosen.teacher
    assert not chosen.peers


def test_another_method_keeps_a_teacher_that_it_uses():
    file = {"method": "kd", "teacher": "runs/t", "lr": 0.3, "options": {"temperature": 9.0}}
    chosen = parse(with_preset(file, {"method": "at"}))
    assert (chosen.teacher, chosen.lr) == ("runs/t", 0.3)
