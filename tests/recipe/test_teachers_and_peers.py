"""Teachers and peers: found by name, refused where they do not fit, said to be good or bad."""

import copy
import json
import shutil

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn

import selfdistill
from selfdistill.core import ArtifactError, Batch, ConfigError, Progress, SelfdistillError
from selfdistill.engine import checkpoint
from selfdistill.engine.callback import Callback
from selfdistill.models import PretrainedNetwork, TrainedInput, build
from selfdistill.recipe.build_run import build_run, load_data
from selfdistill.recipe.placeholder_teacher import placeholder_teacher
from selfdistill.recipe.schema import parse
from selfdistill.recipe.teachers import fingerprint, load_teacher
from selfdistill.records.training_data import TeacherRecord
from selfdistill.taps.fx_split import split_at
from selfdistill.tasks import make_task

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
    network, model, *_ = taught(teacher=teacher)
    trained = selfdistill.load(teacher).network
    assert model == "cifar/resnet10_w16"
    assert fingerprint(network) == fingerprint(trained)


@pytest.mark.slow
def test_of_a_run_with_averaged_weights(tmp_path):
    run = selfdistill.train(method="muse", out=tmp_path / "run", ema_decay=0.5, **TINY)
    network, *_ = taught(teacher=run.path)
    assert fingerprint(network) == fingerprint(run.network)
    newest = max((run.path / "checkpoints").glob("step-*"))
    live = build("cifar/resnet8", num_classes=10, in_channels=1)
    live.load_state_dict(checkpoint.load(newest).tensors["model"])
    assert fingerprint(network) != fingerprint(live)


def test_of_a_weights_file(teacher):
    file = weights_of(teacher)
    network, *_ = taught(teacher=file, teacher_model="cifar/resnet10_w16")
    assert fingerprint(network) == fingerprint(selfdistill.load(teacher).network)
    with pytest.raises(ArtifactError, match="do not fit"):
        taught(teacher=file)  # the student's network is another


def test_a_teacher_of_other_classes(own):
    facts = json.loads((own / "data.json").read_text())
    for change, words in (
        ({"classes": facts["classes"][:-1]}, "tells 9 classes apart and 'digits' has 10"),
        ({"classes": facts["classes"][::-1]}, "has '9' where 'digits' has '0'"),
        ({"task": "segmentation"}, "was trained for segmentation"),
        ({"mean": facts["mean"] * 4, "std": facts["std"] * 4}, "images of 4 channels, and those"),
    ):
        learned(own, **facts | change)
        with pytest.raises(ConfigError, match=words.replace("(", r"\(")):
            taught(teacher=own)


@pytest.mark.parametrize("change", [{"mean": [0.31]}, {"std": [0.1]}, {"mean": [0.5], "std": [2]}])
def test_a_teacher_gets_images_of_its_own_normalization(change, own):
    facts = json.loads((own / "data.json").read_text())
    learned(own, **facts | change)
    data = load_data(parse({**TINY, "method": "kd", "teacher": str(own)}))
    teacher = taught(teacher=own)
    assert "its own normalization" in teacher.note
    plain = build("cifar/resnet10_w16", num_classes=10, in_channels=1).eval()
    plain.load_state_dict(teacher.network.state_dict())  # under the names it always had
    pixels = torch.rand(2, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    own_mean, own_std = (facts | change)["mean"][0], (facts | change)["std"][0]
    images = (pixels - data.mean[0]) / data.std[0]
    with torch.no_grad():
        output = teacher.network.eval()(images)
        torch.testing.assert_close(output, plain((pixels - own_mean) / own_std))


def test_the_data_it_was_trained_on_need_no_change(teacher):
    recipe = parse({**TINY, "max_train_images": None, "method": "kd", "teacher": str(teacher)})
    assert load_teacher(recipe, load_data(recipe)).note == ""


class OtherClasses(nn.Module):
    """Seven scores, whatever the data."""

    def __init__(self) -> None:
        super().__init__()
        self.network = build("cifar/resnet8", num_classes=7, in_channels=1)
        self.stage_ends = tuple(f"network.{name}" for name in self.network.stage_ends)
        self.cuts = tuple(f"network.{name}" for name in self.network.cuts)

    def forward(self, x):
        return self.network(x)


FEATURES = ("at", "vid", "crd", "rkd", "sp", "nst", "fitnets", "nfd", "mimkd")


@pytest.mark.parametrize("method", FEATURES)
def test_features_are_learned_from_a_teacher_of_other_classes(method):
    recipe = parse({**TINY, "method": method})
    components = build_run(recipe, teacher=OtherClasses())
    assert "(2, 7)" in components.teacher_unlike
    images, labels = torch.randn(8, 1, 8, 8), torch.arange(8)
    progress = Progress(*map(torch.tensor, (0, 0, 0, 9)))
    assert components.method(Batch(images, labels, labels), progress).losses.keys() - {"task"}


@pytest.mark.parametrize(
    ("method", "options"),
    [
        ("kd", {}),
        ("dkd", {}),
        ("at", {"soft_weight": 0.5}),
        ("mimkd", {"soft_weight": 0.5}),
        ("muse-offline", {}),
        ("at+kd", {}),
    ],
)
def test_scores_are_not_learned_from_a_teacher_of_other_classes(method, options):
    recipe = parse({**TINY, "method": method, "options": options})
    with pytest.raises(ConfigError, match=r"gives \(2, 7\).*num_classes=10"):
        build_run(recipe, teacher=OtherClasses())
    student = build("cifar/resnet8", num_classes=10, in_channels=1)
    with pytest.raises(ConfigError, match=r"gives \(2, 7\)"):
        selfdistill.wrap(
            student, method, example=torch.zeros(2, 1, 8, 8), classes=10, teacher=OtherClasses(),
            **options,
        )  # fmt: skip


@pytest.mark.parametrize("suffix", [".safetensors", pytest.param(".pth", marks=pytest.mark.slow)])
def test_a_file_of_other_classes(suffix, tmp_path):
    network = build("cifar/wrn_16_1", num_classes=23, in_channels=1)
    file = tmp_path / f"teacher{suffix}"
    if suffix == ".pth":
        torch.save({"state_dict": network.state_dict()}, file)
    else:
        save_file(network.state_dict(), file)
    keys = {**TINY, "teacher": str(file), "teacher_model": "cifar/wrn_16_1"}
    recipe = parse({**keys, "method": "at"})
    teacher = load_teacher(recipe, load_data(recipe), reads_scores=False)
    assert teacher.network.fc.out_features == 23
    assert "tells 23 classes apart" in teacher.unlike
    components = build_run(recipe)
    assert components.method.teacher.names == ("block1", "block2", "block3")
    with pytest.raises(ConfigError, match="tells 23 classes apart"):
        build_run(parse({**keys, "method": "at", "options": {"soft_weight": 0.5}}))


def test_a_published_network_teaches_features(monkeypatch):
    """Of other classes and another normalization, as those of ImageNet are to a small data set."""
    published = PretrainedNetwork(
        lambda: build("cifar/resnet8", num_classes=1000, in_channels=1),
        1000,
        TrainedInput((0.5,), (0.5,), (224, 224)),
    )
    monkeypatch.setattr("selfdistill.recipe.teachers.find_pretrained", lambda *_: published)
    components = build_run(parse({**TINY, "method": "at", "teacher": "timm/resnet8"}))
    assert "tells 1000 classes apart" in components.teacher_unlike
    assert "mean 0.500, std 0.500" in components.teacher_note


def test_a_run_with_a_teacher_of_other_classes(tmp_path):
    told = Says()
    run = selfdistill.train(
        method="at", teacher=OtherClasses(), out=tmp_path / "r", callback=told, **TINY
    )
    assert told.words[0] == "the teacher's classes are not the data's: its features alone are read"
    assert json.loads((run.path / "teacher.json").read_text())["scores"] == {}
    assert fingerprint(selfdistill.load(run.path).network) == fingerprint(run.network)


@pytest.mark.filterwarnings("ignore:teacher ResNet guesses")
@pytest.mark.parametrize("method", ["kd+at+crd", "at"])
def test_a_placeholder_has_the_taps_of_each_method(method, teacher, tmp_path):
    run = selfdistill.train(method=method, teacher=OtherClasses() if method == "at" else build(
        "cifar/resnet14", num_classes=10, in_channels=1), out=tmp_path / "r", **TINY)  # fmt: skip
    loaded = selfdistill.load(run.path).method
    parts = [loaded.parts[name] for name in ("at", "crd")] if "+" in method else [loaded]
    assert [len(part.teacher.names) for part in parts] == [3, 4][: len(parts)]


def test_a_placeholder_can_be_split_at_any_feature(tmp_path):
    shapes = {"auto": {"a": (4, 8, 8), "b": (6, 5, 1)}, "stages": {"c": (3, 4, 4)}}
    record = TeacherRecord("t", "", "", {}, shapes)
    (tmp_path / "teacher.json").write_text(record.to_json())
    network = placeholder_teacher(tmp_path, make_task("classification", "0123456789", (1, 8, 8)))
    images = torch.randn(2, 1, 8, 8)
    for name in (*network.cuts, *network.stage_ends):
        first, second = split_at(network, [name])
        assert torch.equal(second(first(images)), network(images))


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
    for _ in range(2):  # one that is not the last, and none
        shutil.rmtree(max((own / "checkpoints").glob("step-*")))
        with pytest.raises(ConfigError, match="is not trained to the end"):
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


@pytest.mark.filterwarnings("ignore:teacher .* guesses")
def test_a_teacher_of_another_image_size_is_warned_of_with_both_scores(teacher, tmp_path):
    own = selfdistill.load(teacher).exits[-1].val_score
    sentence = rf"images of 8×8, where it .* score of {own:.1%}, and is shown 12×12 here.*size 8 is"
    with pytest.warns(UserWarning, match=sentence):
        selfdistill.train(method="kd", teacher=teacher, image_size=12, out=tmp_path / "r", **TINY)


@pytest.mark.parametrize("method", ["kd", "at"])
@pytest.mark.parametrize("kind", ["published", "exported"])
@pytest.mark.filterwarnings("ignore:teacher .* guesses")
def test_the_size_of_other_teachers_is_compared_too(teacher, kind, method, tmp_path, monkeypatch):
    classes = 10 if method == "kd" else 7
    published = PretrainedNetwork(
        lambda: build("cifar/resnet8", num_classes=classes), classes,
        TrainedInput((0.5,) * 3, (0.5,) * 3, (224, 224)),
    )  # fmt: skip
    monkeypatch.setattr("selfdistill.recipe.teachers.find_pretrained", lambda *_: published)
    name = "timm/resnet8"
    if kind == "exported":
        network = build("cifar/resnet8", num_classes=classes)
        header = {
            "mean": "[0, 0, 0]",
            "std": "[1, 1, 1]",
            "preparation": '{"shape": [3, 224, 224]}',
        }
        name = str(tmp_path / "t.safetensors")
        save_file(network.state_dict(), name, metadata=header)
    sentence = "trained on images of 224×224 and is shown 8×8 here.*--image-size 224 is its own"
    with pytest.warns(UserWarning, match=sentence):
        selfdistill.train(method=method, teacher=name, out=tmp_path / "r", **TINY)


@pytest.mark.slow
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


@pytest.mark.parametrize(
    "roles", [("model", "teacher"), ("model", "peers[0]"), ("peers[0]", "peers[1]")]
)
@pytest.mark.parametrize("shared", ["all", "a stage", "a tensor"])
def test_networks_that_share_weights_are_refused(roles, shared):
    def network():
        return build("cifar/resnet8", num_classes=10, in_channels=1)

    networks = {"model": network(), "teacher": network(), "peers[0]": network(),
                "peers[1]": network()}  # fmt: skip
    first, second = (networks[role] for role in roles)
    if shared == "all":
        networks[roles[1]] = first
    elif shared == "a stage":
        second.layer2 = first.layer2
    else:
        second.fc.bias = first.fc.bias
    offline = "teacher" in roles
    with pytest.raises(ConfigError, match=r"share weights.*copy\.deepcopy\("):
        selfdistill.wrap(
            networks["model"], "kd" if offline else "dml", example=torch.zeros(2, 1, 8, 8),
            classes=10, teacher=networks["teacher"] if offline else None,
            peers=[] if offline else [networks["peers[0]"], networks["peers[1]"]],
        )  # fmt: skip
    assert all(p.requires_grad for p in networks["model"].parameters())


def test_a_copy_as_the_remedy_says_is_taken():
    network = build("cifar/resnet8", num_classes=10, in_channels=1)
    criterion = selfdistill.wrap(
        network, "kd", example=torch.zeros(2, 1, 8, 8), classes=10, teacher=copy.deepcopy(network)
    )
    criterion(torch.randn(4, 1, 8, 8), torch.arange(4)).backward()


def test_cycles_want_a_learning_rate_that_restarts():
    keys = {**TINY, "method": "snapshot", "lr_schedule": "step"}
    with pytest.raises(ConfigError, match=r"2 cycles.*use lr_schedule=cosine"):
        build_run(parse(keys))
    build_run(parse({**TINY, "method": "snapshot"}))


@pytest.fixture(scope="module")
def headed(teacher, tmp_path_factory):
    """The directory of a teacher with the head that students of sskd learn from."""
    place = tmp_path_factory.mktemp("headed") / "run"
    keys = {**TINY, "model": "cifar/resnet10_w16", "weights": str(teacher)}
    selfdistill.train(method="sskd-teacher", out=place, **keys)
    return place


def with_parts(teacher, method="sskd-teacher", **keys):
    recipe = parse({**TINY, "method": "sskd", "teacher": str(teacher), **keys})
    return load_teacher(recipe, load_data(recipe), method=method)


def test_a_teacher_brings_what_its_method_trained(headed, teacher):
    loaded, trained = with_parts(headed), selfdistill.load(headed).method
    assert type(loaded.network) is type(trained)
    assert fingerprint(loaded.network) == fingerprint(trained)
    assert fingerprint(trained.predictors()["student"]) == fingerprint(taught(teacher=teacher)[0])
    assert not loaded.network.training


def test_its_head_counts_for_whether_it_is_the_same(headed, tmp_path):
    trained = selfdistill.load(headed).method
    before = fingerprint(trained)
    with torch.no_grad():
        next(trained.similarity.parameters()).add_(1)
    assert fingerprint(trained) != before


def test_a_student_of_it_is_trained_and_loaded_without_it(headed, tmp_path):
    own = shutil.copytree(headed, tmp_path / "teacher")
    run = selfdistill.train(method="sskd", teacher=own, out=tmp_path / "run", **TINY)
    assert {"turned", "similarity"} <= set(json.loads(metrics(run)[0])["losses"])
    shutil.rmtree(own)
    images = torch.randn(2, 1, 8, 8)
    assert torch.equal(selfdistill.load(run.path).network(images), run.network(images))


def metrics(run):
    return (run.path / "metrics.jsonl").read_text().splitlines()


def test_other_methods_learn_from_its_network_alone(headed):
    plain = taught(teacher=headed).network
    assert fingerprint(plain) == fingerprint(selfdistill.load(headed).network)


def test_a_teacher_without_parts_is_refused_with_the_command_that_trains_them(teacher):
    command = "selfdistill train --method sskd-teacher --data digits --model cifar/resnet10_w16"
    with pytest.raises(ConfigError) as refusal:
        with_parts(teacher)
    assert f"{command} --weights {teacher}" in str(refusal.value)
    for name, arguments in (
        ("timm/resnet18", "--model timm/resnet18 --weights pretrained"),
        ("w.pth", "--model cifar/resnet8 --weights w.pth"),
    ):
        with pytest.raises(ConfigError, match=f"sskd-teacher --data digits {arguments}"):
            with_parts(name)
    with pytest.raises(ConfigError, match=r"hsakd-teacher.*teacher=run\.method"):
        selfdistill.train(method="hsakd", teacher=build("cifar/resnet8", num_classes=10), **TINY)


def test_a_network_that_stays_as_it_is_needs_weights(tmp_path):
    with pytest.raises(ConfigError, match="stays as it is; give --weights"):
        selfdistill.train(method="sskd-teacher", out=tmp_path / "run", **TINY)
    assert not (tmp_path / "run").exists()


@pytest.mark.filterwarnings("ignore")  # of what is left out
@pytest.mark.parametrize("classes", [None, 3])
def test_a_network_that_stays_as_it_is_has_all_of_its_weights(teacher, tmp_path, classes):
    state = {n: t for n, t in load_file(weights_of(teacher)).items() if not n.startswith("fc.")}
    if classes:
        other = build("cifar/resnet10_w16", num_classes=classes, in_channels=1).state_dict()
        state |= {n: other[n] for n in ("fc.weight", "fc.bias")}
    file = tmp_path / "other.safetensors"
    save_file(state, file)
    keys = TINY | {"model": "cifar/resnet10_w16", "weights": str(file), "out": tmp_path / "run"}
    with pytest.raises(ConfigError, match=r"lack fc\.bias for these classes; train the network on"):
        selfdistill.train(method="sskd-teacher", **keys)
    assert not (tmp_path / "run").exists()
    assert selfdistill.train(method="sskd-teacher", backbone="joint", **keys).exits
