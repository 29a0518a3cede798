"""Teachers and peers: found by name, refused where they do not fit, said to be good or bad."""

import json
import shutil

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

import selfdistill
from selfdistill.core import ArtifactError, ConfigError, SelfdistillError
from selfdistill.engine import checkpoint
from selfdistill.engine.callback import Callback
from selfdistill.models import build
from selfdistill.recipe.build_run import build_run, load_data
from selfdistill.recipe.schema import parse
from selfdistill.recipe.teachers import fingerprint, load_teacher

TINY = {"epochs": 1, "max_train_images": 64, "batch_size": 32, "model": "cifar/resnet8"}


@pytest.fixture(scope="module")
def teacher(tmp_path_factory):
    """The directory of a trained run; not to be changed."""
    place = tmp_path_factory.mktemp("teacher") / "run"
    selfdistill.train(method="ce", out=place, epochs=2, model="cifar/resnet10_w16")
    return place


@pytest.fixture
def own(teacher, tmp_path):
    """A copy that may be changed."""
    return shutil.copytree(teacher, tmp_path / "own")


def learned(run, **changes):
    """Let a run have learned other data, by its file and by its checkpoints."""
    facts = json.loads((run / "data.json").read_text()) | changes
    text = json.dumps(facts)
    (run / "data.json").write_text(text)
    saved = checkpoint.newest(run / "checkpoints")
    saved.state["origin"]["data.json"] = text
    checkpoint.save(run / "checkpoints", saved)


def taught(**keys):
    recipe = parse({**TINY, "method": "kd", **{k: str(v) for k, v in keys.items()}})
    return load_teacher(recipe, load_data(recipe))


def weights_of(run):
    newest = max((run / "checkpoints").glob("step-*"))
    return newest / "model.safetensors"


def test_of_a_run(teacher):
    network, model = taught(teacher=teacher)
    trained = selfdistill.load(teacher).network
    assert model == "cifar/resnet10_w16"
    assert fingerprint(network) == fingerprint(trained)


def test_of_a_run_with_averaged_weights(tmp_path):
    run = selfdistill.train(method="muse", out=tmp_path / "run", ema_decay=0.5, **TINY)
    network, _ = taught(teacher=run.path)
    assert fingerprint(network) == fingerprint(run.network)
    newest = max((run.path / "checkpoints").glob("step-*"))
    live = build("cifar/resnet8", num_classes=10, in_channels=1)
    live.load_state_dict(checkpoint.load(newest).tensors["model"])
    assert fingerprint(network) != fingerprint(live)


def test_of_a_weights_file(teacher):
    file = weights_of(teacher)
    network, _ = taught(teacher=file, teacher_model="cifar/resnet10_w16")
    assert fingerprint(network) == fingerprint(selfdistill.load(teacher).network)
    with pytest.raises(ArtifactError, match="do not fit"):
        taught(teacher=file)  # the student's network is another


def test_a_teacher_of_other_classes(own):
    facts = json.loads((own / "data.json").read_text())
    for change, words in (
        ({"classes": facts["classes"][:-1]}, "tells 9 classes apart and 'digits' has 10"),
        ({"classes": facts["classes"][::-1]}, "has '9' where 'digits' has '0'"),
        ({"mean": [0.9]}, "learned images of mean"),
        ({"std": [0.6]}, "learned images of mean"),
        ({"mean": facts["mean"] * 3, "std": facts["std"] * 3}, "learned images of mean"),
    ):
        learned(own, **facts | change)
        with pytest.raises(ConfigError, match=words.replace("(", r"\(")):
            taught(teacher=own)


def test_a_subset_has_nearly_the_same_normalization(own):
    facts = json.loads((own / "data.json").read_text())
    learned(own, mean=[facts["mean"][0] + 0.02 * facts["std"][0]])
    taught(teacher=own)
    learned(own, mean=[facts["mean"][0] + 0.15 * facts["std"][0]])
    with pytest.warns(UserWarning, match="other images or another size of the same data"):
        taught(teacher=own)
    learned(own, name="letters")
    with pytest.raises(ConfigError, match="train the teacher on the student's data"):
        taught(teacher=own)


def test_a_run_that_says_nothing_of_its_data(own):
    (own / "data.json").unlink()
    with pytest.raises(ArtifactError, match=r"data\.json cannot be read"):
        taught(teacher=own)


@pytest.mark.parametrize("file", ["data.json", "recipe.toml"])
def test_a_run_that_was_edited_is_no_teacher(own, file):
    text = (own / file).read_text()
    changed = text.replace("cifar/resnet10_w16", "cifar/resnet8")
    changed = changed.replace('"mean": [', '"mean": [1, ')
    (own / file).write_text(changed)
    with pytest.raises(SelfdistillError, match=rf"{file} was changed"):
        taught(teacher=own)


def test_an_unfinished_run(own):
    for words in ("is not trained to the end", "no checkpoint yet"):
        shutil.rmtree(max((own / "checkpoints").glob("step-*")))
        with pytest.raises(ConfigError, match=words):
            taught(teacher=own)


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("runs/nothing", "there is no teacher 'runs/nothing'"),
        ("timm/resnet18", "tells 1000 classes apart and 'digits' has 10"),
        ("timm/resnt18", "did you mean"),
    ],
)
def test_a_teacher_that_is_not_there(name, words):
    with pytest.raises(ConfigError, match=words):
        taught(teacher=name)


def test_a_nearby_name_is_hinted_at(teacher):
    with pytest.raises(ConfigError, match="did you mean"):
        taught(teacher=teacher.parent / "rum")


@pytest.mark.parametrize(
    ("keys", "words"),
    [
        ({"method": "muse", "teacher": "x"}, "'muse' has no use for a teacher"),
        ({"method": "ce", "peers": ["cifar/resnet8"]}, "'ce' has no use for peers"),
        ({"method": "kd", "peers": ["cifar/resnet8"]}, "'kd' has no use for peers"),
    ],
)
def test_a_teacher_or_peers_that_a_method_does_not_use(keys, words):
    with pytest.raises(ConfigError, match=words):
        parse(keys)


def test_an_offline_method_without_a_teacher():
    with pytest.raises(ConfigError, match="learns from a teacher: give --teacher"):
        build_run(parse({**TINY, "method": "kd"}))


class Says(Callback):
    def __init__(self):
        self.words, self.summary = [], {}

    def on_start(self, summary):
        self.summary = summary

    def on_message(self, text):
        self.words.append(text)


def test_the_teacher_is_evaluated_before_training(teacher, tmp_path):
    told = Says()
    run = selfdistill.train(method="kd", teacher=teacher, out=tmp_path / "r", callback=told, **TINY)
    about = json.loads((run.path / "teacher.json").read_text())
    assert told.words[0].startswith(f"the teacher gets {about['scores']['accuracy']:.1%} of 144")
    assert told.summary["teacher"].startswith(f"{teacher}, 308,538")
    assert run.recipe.teacher_model == "cifar/resnet10_w16"
    assert selfdistill.load(run.path).exits == run.exits


def test_without_validation_images_training_images_evaluate_it(teacher, tmp_path):
    told = Says()
    selfdistill.train(
        method="kd", teacher=teacher, out=tmp_path / "r", callback=told, val_fraction=0.0, **TINY
    )
    assert "of 64 training images right" in told.words[0]


def test_a_run_can_be_evaluated_when_its_teacher_is_gone(own, tmp_path):
    run = selfdistill.train(method="kd", teacher=own, out=tmp_path / "r", **TINY)
    shutil.rmtree(own)
    assert fingerprint(selfdistill.load(run.path).network) == fingerprint(run.network)


def test_a_teacher_that_changed_is_no_teacher_to_go_on_with(own, tmp_path):
    out = tmp_path / "r"
    selfdistill.train(method="kd", teacher=own, out=out, **TINY)
    newest = max((own / "checkpoints").glob("step-*"))
    found = checkpoint.load(newest)
    found.tensors["model"]["fc.bias"] += 1
    checkpoint.save(own / "checkpoints", found)
    with pytest.raises(ArtifactError, match="no longer the one that this run began with"):
        selfdistill.train(out=out, resume=True)


def test_a_guessing_teacher_is_warned_of(tmp_path):
    torch.manual_seed(0)
    guesses = build("cifar/resnet8", num_classes=10, in_channels=1)
    nn.init.zeros_(guesses.fc.weight)
    with pytest.warns(UserWarning, match="about chance"):
        run = selfdistill.train(method="kd", teacher=guesses, out=tmp_path / "r", **TINY)
    assert run.recipe.teacher == "ResNet"


@pytest.mark.filterwarnings("ignore:.*another size of the same data")
def test_a_teacher_of_another_image_size_is_warned_of_with_both_scores(teacher, tmp_path):
    own = selfdistill.load(teacher).exits[-1].val_score
    sentence = rf"images of 8×8, where it .* score of {own:.1%}, and is shown 12×12 here.*size 8 is"
    with pytest.warns(UserWarning, match=sentence):
        selfdistill.train(method="kd", teacher=teacher, image_size=12, out=tmp_path / "r", **TINY)


def test_teacher_file_that_is_a_pickle_with_code(tmp_path):
    file = tmp_path / "t.pt"
    torch.save(nn.Linear(2, 2), file)
    with pytest.raises(ArtifactError, match="hold more than tensors"):
        taught(teacher=file)
    save_file({"x": torch.ones(1)}, tmp_path / "t.safetensors")
    with pytest.raises(ArtifactError, match="do not fit"):
        taught(teacher=tmp_path / "t.safetensors")


def test_peers_by_name_by_module_and_by_default(tmp_path):
    by_name = selfdistill.train(
        method="dml", peers=["cifar/resnet14", "cifar/resnet8"], out=tmp_path / "a", **TINY
    )
    assert [row.predictor for row in by_name.exits] == ["peer1", "peer2", "student"]
    assert selfdistill.load(by_name.path).exits == by_name.exits
    like = selfdistill.train(method="dml", out=tmp_path / "b", **TINY)
    assert [row.parameters for row in like.exits] == [like.exits[1].parameters] * 2
    first, second = like.method.predictors().values()
    assert fingerprint(first) != fingerprint(second)
    peer = build("cifar/resnet8", num_classes=10, in_channels=1)
    own = selfdistill.train(method="dml", peers=[peer], out=tmp_path / "c", **TINY)
    assert own.method.predictors()["peer1"] is peer
    with pytest.raises(ConfigError, match="names or modules"):
        selfdistill.train(method="dml", peers=[peer, "cifar/resnet8"], out=tmp_path / "d", **TINY)
