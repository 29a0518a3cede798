"""Runs that learn a teacher's features from pictures alone: all verbs, a resume, fine-tuning."""

import copy
from functools import partial

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

import selfdistill
from selfdistill.core import ArtifactError, ConfigError, DataError
from selfdistill.engine.callback import Callback
from selfdistill.models import PretrainedNetwork, TrainedInput
from selfdistill.recipe.schema import parse
from selfdistill.records.embeddings import FILE, read_embeddings

TINY = {"model": "cifar/resnet8", "batch_size": 16, "epochs": 2, "quiet": True, "num_workers": 0}
UNLABELED = TINY | {"method": "feature-kd"}


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A folder with a teacher of ten classes, 64 pictures in two folders, and a run of these."""
    folder, rng = tmp_path_factory.mktemp("embedding"), np.random.default_rng(0)
    for i in range(64):
        path = folder / "pictures" / "ab"[i % 2] / f"{i}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(rng.integers(0, 256, (8, 8, 3), dtype=np.uint8)).save(path)
    keys = {"data": "digits", "max_train_images": 128}
    selfdistill.train(method="ce", out=folder / "teacher", **TINY | keys)
    train(folder, folder / "run")
    return folder


def train(place, out, **keys):
    given = {"data": f"folder:{place / 'pictures'}", "teacher": str(place / "teacher")}
    return selfdistill.train(out=out, **UNLABELED | given | keys)


def test_a_run_is_scored_without_its_teacher(place, monkeypatch):
    monkeypatch.setattr("selfdistill.recipe.build_run.load_teacher", None)
    run = selfdistill.load(place / "run")
    assert run.recipe.task == "embedding"
    [student] = run.exits
    assert (student.metric, student.test_score) == ("similarity", None)
    evaluated = run.evaluate()
    assert (evaluated.split, evaluated.num_images) == ("val", 6)
    assert evaluated.exits[0].val_score == pytest.approx(student.val_score, abs=1e-5)
    assert run.network(torch.zeros(2, 3, 8, 8)).shape == (2, 64)


def test_the_score_is_the_similarity_with_the_teachers_features(place):
    run = selfdistill.load(place / "run")
    teacher = selfdistill.load(place / "teacher")
    pixels = run.data.val.images.float() / 255
    luma = (pixels * torch.tensor([0.299, 0.587, 0.114])[:, None, None]).sum(1, keepdim=True)
    shown = (luma - teacher.data.mean[0]) / teacher.data.std[0]
    network = copy.deepcopy(teacher.network).eval()
    features = nn.Sequential(*list(network.children())[:-1])
    with torch.no_grad():
        network.fc = nn.Identity()
        vectors = network(shown).numpy()
        mean, std = (np.array(x)[:, None, None] for x in (run.data.mean, run.data.std))
        inputs = ((pixels.numpy() - mean) / std).astype(np.float32)
        ours = run.network(torch.from_numpy(inputs)).numpy()
    assert features
    want = (vectors - vectors.mean(0)) / np.maximum(vectors.std(0), 1e-6)
    kept = read_embeddings(run.path)["val"].float().numpy()
    np.testing.assert_allclose(kept, want, atol=0.02)
    norms = np.linalg.norm(ours, axis=1) * np.linalg.norm(want, axis=1)
    similarity = ((ours * want).sum(1) / norms).mean()
    assert run.exits[0].val_score == pytest.approx(similarity, abs=2e-3)


@pytest.mark.filterwarnings("ignore:.*left out, since the head is for other classes")
def test_fine_tuning_begins_with_all_but_the_head(place, tmp_path):
    keys = {"data": "digits", "max_train_images": 64, "epochs": 1, "lr": 1e-12}
    keys |= {"weights": str(place / "run"), "out": tmp_path / "fine"}
    with pytest.warns(UserWarning, match=r"left out, since the head is for other classes"):
        run = selfdistill.train(method="ce", **TINY | keys)
    begun = selfdistill.load(place / "run").network.state_dict()
    for name, parameter in run.network.named_parameters():
        if not name.startswith("fc."):
            torch.testing.assert_close(parameter, begun[name])
    assert run.network.fc.out_features == 10
    assert run.exits[-1].metric == "accuracy"


class Stop(Callback):
    """Ends a run in the middle of an epoch."""

    class Stopped(BaseException):
        pass

    def on_step(self, step, total_steps):
        if step == 4:
            raise self.Stopped


def test_goes_on_to_the_very_weights(place, tmp_path):
    with pytest.raises(Stop.Stopped):
        train(place, tmp_path / "part", save_every_steps=1, callback=Stop(), quiet=False)
    (tmp_path / "part" / FILE).unlink()  # is asked for anew
    part = selfdistill.train(out=tmp_path / "part", resume=True, quiet=True)
    whole = selfdistill.load(place / "run")
    for name, tensor in whole.method.student.state_dict().items():
        assert torch.equal(tensor, part.method.student.state_dict()[name]), name
    assert part.exits == whole.exits
    longer = selfdistill.train(out=tmp_path / "part", resume=True, epochs=3, quiet=True)
    assert longer.state["epoch"] == 3


def test_verbs(place, tmp_path):
    run = selfdistill.load(place / "run")
    result = run.export(exit="student", out=tmp_path / "e", format="pt2")
    assert result.verification.holds
    assert result.verification.summary.startswith("outputs differ by")
    assert result.verification.score == pytest.approx(run.exits[0].val_score, abs=1e-4)
    card = (tmp_path / "e" / "README.md").read_text()
    assert "image-feature-extraction" in card
    assert "It gives an embedding of 64 numbers" in card
    assert "No label was read" in card
    assert "classes = " not in card
    assert "import json" not in card
    weights = run.export(exit="student", out=tmp_path / "w", format="safetensors", image_size=16)
    assert weights.verification.holds
    measured = run.measure_exits(batch_sizes=(1,))
    assert measured.metric == "similarity"
    page = run.report().read_text()
    assert "cosine similarity" in page
    report = selfdistill.diagnose(
        **{k: v for k, v in UNLABELED.items() if k != "quiet"},
        data=f"folder:{place / 'pictures'}", teacher=str(place / "teacher"), seconds=0.1,
        out=tmp_path / "none",
    )  # fmt: skip
    assert report.teacher.classes == "not read: its features alone are"


def test_verbs_that_make_no_sense_are_refused(place, tmp_path):
    run = selfdistill.load(place / "run")
    with pytest.raises(ConfigError, match="knows no class; fine-tune it"):
        run.predict(place / "pictures")
    with pytest.raises(ConfigError, match="embedding gives images none"):
        run.anytime()
    with pytest.raises(ConfigError, match="train with --data digits and the same teacher"):
        run.evaluate(data="digits")
    with pytest.raises(ConfigError, match="reads no label, so nothing compares it with 'ce'"):
        selfdistill.compare(["feature-kd"], teacher=str(place / "teacher"), out=tmp_path / "c")


def test_what_does_not_go_together_is_refused(place):
    for keys, words in (
        ({"method": "feature-kd", "task": "classification"}, "leave --task out"),
        ({"method": "feature-kd", "task": "segmentation"}, "leave --task out"),
        ({"method": "feature-kd+muse"}, "joined with no other method"),
        ({"method": "muse+feature-kd"}, "joined with no other method"),
    ):
        with pytest.raises(ConfigError, match=words):
            parse(keys)
    assert parse({"method": "feature-kd"}).task == "embedding"
    assert parse({"method": "feature-kd", "task": "embedding"}).task == "embedding"
    with pytest.raises(ConfigError, match="give --teacher"):
        selfdistill.train(**UNLABELED, data="digits")
    with pytest.raises(ConfigError, match="learns from labels, which embedding lacks"):
        train(place, place / "none", method="at", task="embedding")


def test_a_lost_or_foreign_file_of_embeddings(place, tmp_path):
    run = train(place, tmp_path / "run", epochs=1)
    file = run.path / FILE
    kept = file.read_bytes()
    file.unlink()
    with pytest.raises(ArtifactError, match="train --resume"):
        selfdistill.load(run.path)
    file.write_bytes(b"nothing")
    with pytest.raises(ArtifactError, match="cannot be read"):
        selfdistill.load(run.path)
    file.write_bytes(kept)
    image = next((place / "pictures" / "a").iterdir())
    moved = image.rename(tmp_path / image.name)
    try:
        with pytest.warns(UserWarning, match="none are held out"):
            changed = selfdistill.load(run.path)
        with pytest.raises(DataError, match="has no test and no val part"):
            changed.evaluate()
    finally:
        moved.rename(image)


def transformer() -> nn.Module:
    import timm

    settings = {"patch_size": 4, "embed_dim": 24, "depth": 4, "num_heads": 2, "img_size": 16}
    torch.manual_seed(0)
    return timm.create_model("vit_tiny_patch16_224", num_classes=0, **settings)


def test_a_published_transformer_of_another_size_license_and_no_classes(
    place, tmp_path, monkeypatch
):
    messages, sizes = [], []

    def find(name, size=None):
        sizes.append(size)
        shown = TrainedInput((0.5,) * 3, (0.25,) * 3, (16, 16))
        return PretrainedNetwork(transformer, 0, shown, "some-license")

    class Hear(Callback):
        def on_message(self, message):
            messages.append(message)

        def on_start(self, summary):
            messages.append(summary["teacher"])

    monkeypatch.setattr("selfdistill.recipe.teachers.find_pretrained", find)
    keys = {"teacher": "timm/vit_tiny_patch16_224", "epochs": 1, "callback": Hear()}
    run = train(place, tmp_path / "run", **keys, quiet=False)
    assert run.network(torch.zeros(2, 3, 8, 8)).shape == (2, 24)
    said = " ".join(messages)
    assert "its images resized to 16×16" in said
    assert "are under some-license" in said
    train(place, tmp_path / "other", teacher_image_size=16, **keys, quiet=False)
    assert sizes == [None, 16]
    first, second = (selfdistill.load(tmp_path / n).exits for n in ("run", "other"))
    assert first == second


def test_images_are_not_distorted_for_a_teacher(place, tmp_path):
    rng = np.random.default_rng(0)
    np.savez(tmp_path / "wide.npz", images=rng.integers(0, 256, (40, 8, 12), dtype=np.uint8))
    with pytest.raises(ConfigError, match="would be distorted to 8×8; give --image-size 8"):
        train(place, tmp_path / "r", data=f"npz:{tmp_path / 'wide.npz'}", teacher_image_size=8)


def test_a_module_teaches_at_a_size_of_its_own(place, tmp_path):
    teacher = transformer()
    run = train(
        place, tmp_path / "run", teacher=teacher, teacher_image_size=16, epochs=1, val_fraction=0.0
    )
    assert run.exits[0].val_score is None
    assert not (run.path / FILE).exists()
    again = selfdistill.load(run.path, teacher=partial(transformer)())
    assert torch.equal(again.network(torch.ones(1, 3, 8, 8)), run.network(torch.ones(1, 3, 8, 8)))
