"""Runs whose data, recipe or tables are no longer those of the training, by every command."""

import json
import shutil
from pathlib import Path

import pytest
from command import pictures, say

from selfdistill import load, train
from selfdistill.core import ConfigError, DataError

SETTINGS = ("--method", "exits", "--model", "cifar/resnet8", "--epochs", 2, "--batch-size", 8,
            "--val-fraction", 0.3, "--save-every-steps", 2, "--device", "cpu")  # fmt: skip


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """Pictures of two classes and a run on them, in one folder; not to be changed."""
    place = tmp_path_factory.mktemp("trained")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(place)
        pictures(Path("pets"))
        ran = say("train", "--data", "folder:pets", *SETTINGS, "--out", "run")
    assert ran.code == 0, ran.err
    return place


@pytest.fixture
def own(trained, tmp_path):
    """A copy of both, which is the working directory."""
    shutil.copytree(trained, tmp_path, dirs_exist_ok=True)
    return tmp_path


def rename_class(place):
    (place / "pets" / "cat").rename(place / "pets" / "zebra")


def add_class(place):
    shutil.copytree(place / "pets" / "cat", place / "pets" / "ant")


def drop_class(place):
    shutil.copytree(place / "pets" / "cat", place / "pets" / "eel")
    shutil.rmtree(place / "pets" / "cat")


CLASSES = {
    rename_class: "has 'cat' where 'folder:pets' has 'dog'",
    add_class: "tells 2 classes apart and 'folder:pets' has 3 ('ant' is new)",
    drop_class: "has 'cat' where 'folder:pets' has 'dog'",
}


@pytest.mark.parametrize("change", CLASSES)
def test_other_classes_are_refused_with_their_names(own, change):
    change(own)
    with pytest.raises(DataError) as refused:
        load("run")
    assert CLASSES[change] in str(refused.value)
    with pytest.raises(DataError) as refused:
        train(out="run", resume=True)
    assert CLASSES[change] in str(refused.value)


@pytest.mark.parametrize("verb", ["evaluate", "exits", "anytime", "information", "export"])
def test_every_command_refuses_other_classes(own, verb):
    rename_class(own)
    page = (own / "run" / "report.html").read_bytes()
    refused = say(verb, "run")
    assert refused.code == 4, refused.err
    assert "has 'cat' where 'folder:pets' has 'dog'; give back the data" in refused.err
    assert (own / "run" / "report.html").read_bytes() == page


def drop_images(place):
    for i in range(5):
        (place / "pets" / "cat" / f"{i}.png").unlink()


def move_image(place):
    (place / "pets" / "cat" / "7.png").rename(place / "pets" / "dog" / "77.png")
    (place / "pets" / "dog" / "3.png").rename(place / "pets" / "cat" / "33.png")


@pytest.mark.parametrize("change", [drop_images, move_image])
def test_other_images_stop_a_resume_and_are_warned_of_elsewhere(own, change):
    change(own)
    with pytest.raises(DataError, match=r"has changed since run was trained.*or start a new run"):
        train(out="run", resume=True)
    with pytest.warns(UserWarning, match="may have been trained on"):
        load("run")


def test_data_may_move(own):
    shutil.move("pets", "animals")
    recipe = own / "run" / "recipe.toml"
    recipe.write_text(recipe.read_text().replace("folder:pets", "folder:animals"))
    assert load("run").unfinished == ""
    assert train(out="run", resume=True).exits


@pytest.mark.parametrize(
    ("key", "value"),
    [("lr", 0.2), ("seed", 3), ("batch_size", 4), ("optimizer", "adamw"), ("ema_decay", 0.9),
     ("max_train_images", 20), ("image_size", 8), ("epochs", 9), ("flip", False)],
)  # fmt: skip
def test_a_changed_recipe_is_refused_by_the_key(own, key, value):
    recipe = own / "run" / "recipe.toml"
    lines = [line for line in recipe.read_text().splitlines() if not line.startswith(f"{key} =")]
    recipe.write_text("\n".join([f"{key} = {json.dumps(value)}", *lines]))
    for verb in ("evaluate", "export"):
        refused = say(verb, "run")
        assert refused.code in (2, 4), refused.err
        assert f"its {key} is" in refused.err or "has changed" in refused.err
    with pytest.raises((ConfigError, DataError)):
        train(out="run", resume=True)


@pytest.mark.parametrize("text", ["", "lr = [", "\xff"])
def test_a_recipe_that_is_none_any_more_is_a_sentence(own, text):
    (own / "run" / "recipe.toml").write_text(text, encoding="latin-1")
    for command in (("evaluate", "run"), ("train", "--resume", "run")):
        refused = say(*command)
        assert refused.code in (2, 4)
        assert "Traceback" not in refused.err


@pytest.mark.parametrize("file", ["data.json", "exits.csv", "metrics.jsonl", "environment.json"])
@pytest.mark.parametrize("text", ["", "[]", "3", "null", "{}", "[" * 100_000, "a,b\n1\n", "\xff"])
def test_a_damaged_file_is_never_a_traceback(own, file, text):
    (own / "run" / file).write_text(text, encoding="latin-1")
    ran = say("evaluate", "run")
    assert ran.code in (0, 6), ran.err
    assert "Traceback" not in ran.err


def test_edited_normalization_is_no_normalization(own):
    facts = json.loads((own / "run" / "data.json").read_text())
    facts["mean"] = [0.1, 0.1, 0.1]
    (own / "run" / "data.json").write_text(json.dumps(facts))
    refused = say("evaluate", "run")
    assert refused.code == 6
    assert "data.json was changed since the training" in refused.err


def test_a_run_is_extended_openly(own):
    refused = say("train", "--resume", "run", "--epochs", 1)
    assert (refused.code, "would cut it short" in refused.err) == (2, True)
    longer = say("train", "--resume", "run", "--epochs", 4)
    assert longer.code == 0, longer.err
    assert "the run is extended from 2 to 4 epochs: from here on the learning rate" in longer.out
    run = load("run")
    assert (run.recipe.epochs, run.state["epoch"], run.unfinished) == (4, 4, "")
    entries = [json.loads(x) for x in Path("run/metrics.jsonl").read_text().splitlines()]
    assert [e["epoch"] for e in entries if e["kind"] == "epoch"] == [0, 1, 2, 3]
    assert [e["kind"] for e in entries].count("final") == 1
    assert train(out="run", resume=True, epochs=5).state["epoch"] == 5
    assert train(out="run", resume=True, epochs=5).state["epoch"] == 5
    with pytest.raises(ConfigError, match=r"whose lr is 0.05; leave out lr"):
        train(out="run", resume=True, lr=0.1)


@pytest.mark.filterwarnings("default")
def test_an_earlier_checkpoint_is_named_with_its_step(own):
    newest = max((own / "run" / "checkpoints").glob("step-*"))
    (newest / "model.safetensors").write_bytes(b"")
    ran = say("evaluate", "run")
    assert ran.code == 0
    assert "The run is not finished: the weights are those of step" in ran.out
    measured = say("exits", "run", "--batch-size", 1)
    assert measured.code == 0, measured.err
    assert "the weights are those of step" in measured.out
    assert say("export", "run").code == 2


def test_other_data_are_compared_by_the_names_of_their_classes(own):
    pictures(own / "plants", classes=("rose", "tulip"))
    refused = say("evaluate", "run", "--data", "folder:plants")
    assert refused.code == 4
    assert "the run has 'cat' where 'folder:plants' has 'rose'" in refused.err
    pictures(own / "more", classes=("cat", "dog"))
    assert say("evaluate", "run", "--data", "folder:more", "--split", "val").code == 0
