"""Runs whose teacher's outputs are kept: the same losses, at another cost."""

import json
import shutil
from collections import namedtuple
from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch
from safetensors.torch import load_file
from torch import nn

import selfdistill
from selfdistill.core import METHODS, Batch, ConfigError, Progress, ResourceError
from selfdistill.data import InMemoryImages
from selfdistill.data.targets import Masks
from selfdistill.engine.callback import Callback
from selfdistill.models import build
from selfdistill.models.renormalize import convert_inputs, renormalize_inputs, resize_inputs
from selfdistill.recipe import teacher_cache
from selfdistill.recipe.build_run import build_run, load_data
from selfdistill.recipe.document import typed_recipe
from selfdistill.recipe.schema import parse
from selfdistill.recipe.teacher_cache import cache_bytes, describe_outputs
from selfdistill.runs import train as train_module
from selfdistill.teacher_cache import CachedTeacherBatches, OutputEncoding
from selfdistill.teacher_cache.store import StoredView

pytestmark = pytest.mark.filterwarnings("ignore:teacher .* guesses")  # it is not trained

TINY = {"method": "kd", "model": "cifar/resnet8", "max_train_images": 70, "batch_size": 32}
TINY |= {"epochs": 4, "cache_views": 2, "log_every_steps": 1, "lr": 0.02}


def teacher(seed: int = 0) -> nn.Module:
    torch.manual_seed(seed)
    return build("cifar/resnet8", num_classes=10, in_channels=1)


class Messages(Callback):
    def __init__(self) -> None:
        self.texts: list[str] = []

    def on_message(self, text: str) -> None:
        self.texts.append(text)


def train(out, **keys):
    given = {"teacher": teacher(), "cache_dir": str(out.parent / "cache"), "quiet": True}
    return selfdistill.train(out=out, **(TINY | given | keys))


def losses(run) -> list[dict]:
    lines = [json.loads(line) for line in (run.path / "metrics.jsonl").read_text().splitlines()]
    return [line["losses"] for line in lines if line["kind"] == "step"]


def weights(run) -> dict[str, torch.Tensor]:
    newest = max((run.path / "checkpoints").glob("step-*"))
    return load_file(newest / "model.safetensors")


def same_weights(first, second) -> bool:
    first, second = weights(first), weights(second)
    return all(torch.equal(value, second[name]) for name, value in first.items())


@pytest.fixture
def live(monkeypatch):
    """Has the teacher run in every step, on the views that come again."""

    def switch() -> None:
        monkeypatch.setattr(train_module, "with_teacher_cache", lambda batches, *_: (batches, ""))

    return switch


@pytest.fixture
def forbidden(monkeypatch):
    """Has every pass of the teacher fail."""

    def switch() -> None:
        def fail(*_):
            raise AssertionError("the teacher was run")

        monkeypatch.setattr(CachedTeacherBatches, "_computed", fail)

    return switch


def test_losses_are_those_of_the_live_teacher_bit_for_bit(tmp_path, live):
    kept = train(tmp_path / "kept")
    live()
    want = train(tmp_path / "live")
    assert losses(kept) == losses(want)
    assert len(losses(kept)) == 8
    assert same_weights(kept, want)


STRONG = {"auto_augment": "trivial", "erase_probability": 0.5, "crop_padding": 2}


def test_strong_views_come_again_whatever_the_run_s_seed(tmp_path, live, forbidden):
    kept = train(tmp_path / "kept", **STRONG)
    live()
    assert losses(kept) == losses(train(tmp_path / "live", **STRONG))
    forbidden()
    train(tmp_path / "other", seed=3, **STRONG)


def test_mixed_images_are_not_kept_and_that_is_said(tmp_path):
    messages = Messages()
    train(tmp_path / "run", callback=messages, epochs=1, mixup=0.2)
    assert any("images are mixed with others of their batch" in text for text in messages.texts)
    assert not (tmp_path / "cache").exists()


def test_students_of_all_methods_and_seeds_read_what_the_first_one_left(tmp_path, forbidden):
    train(tmp_path / "first")
    forbidden()
    train(tmp_path / "second", seed=3)
    train(tmp_path / "third", method="dkd", batch_size=16)
    train(tmp_path / "fourth", method="muse+kd", model="cifar/resnet10_w16")
    assert len(list((tmp_path / "cache").iterdir())) == 1


def test_a_killed_run_goes_on_to_the_same_weights(tmp_path, monkeypatch):
    class Killed(Callback):
        def on_step(self, step, total_steps):
            if step == 3:
                raise InterruptedError

    want = train(tmp_path / "whole", save_every_steps=1)
    shutil.rmtree(tmp_path / "cache")
    with monkeypatch.context() as killed:
        killed.setattr(StoredView, "flush", lambda view: None)  # nor anything else is written
        with pytest.raises(InterruptedError):
            train(tmp_path / "run", save_every_steps=1, callback=Killed())
    assert not list((tmp_path / "cache").glob("*/*.safetensors"))
    run = selfdistill.train(out=tmp_path / "run", resume=True, teacher=teacher(), quiet=True)
    assert same_weights(run, want)


def test_a_full_disk_is_told_and_training_goes_on(tmp_path, monkeypatch):
    want = train(tmp_path / "whole")
    full = namedtuple("usage", "total used free")(0, 0, 0)
    shutil.rmtree(tmp_path / "cache")

    def fail(path, content):
        raise ResourceError(f"{path} could not be written: No space left on device")

    written = "selfdistill.teacher_cache.store.write_atomically"
    with monkeypatch.context() as patched:
        patched.setattr("selfdistill.teacher_cache.store._write_description", lambda *_: None)
        patched.setattr(written, fail)
        with pytest.warns(UserWarning, match="goes on live where they are missing"):
            assert same_weights(train(tmp_path / "full"), want)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: full)
    with pytest.raises(ResourceError, match=r"take 6\.2 kB in .* are free; lower --cache-views"):
        train(tmp_path / "refused", cache_seed=1)
    assert not (tmp_path / "refused").exists()


def test_what_is_kept_is_said(tmp_path):
    messages = Messages()
    train(tmp_path / "run", callback=messages, cache_classes=4, cache_precision="fp16")
    said = next(text for text in messages.texts if "are kept" in text)
    assert "2 views of 70 images, the 4 largest of 10 scores in fp16, 2.5 kB" in said


@pytest.mark.parametrize(("method", "temperature"), [("kd", "4"), ("dist", "1"), ("kd+dist", "1")])
def test_another_temperature_is_said(method, temperature, tmp_path):
    messages = Messages()
    train(tmp_path / "run", method=method, callback=messages, cache_classes=4, epochs=1)
    said = next(text for text in messages.texts if "are kept" in text)
    exact = "exact at temperature 4 and not at the method's 1"
    assert (exact in said) == (temperature == "1")


@pytest.mark.parametrize("method", ["kd", "dkd", "at+kd"])
def test_standardized_scores_are_wanted_whole(method, tmp_path):
    chosen = {"standardize_logits": True}
    options = {"kd": chosen} if "+" in method else chosen
    keys = {"method": method, "options": options, "epochs": 1}
    if "+" not in method:  # which runs live
        with pytest.raises(ConfigError, match=r"cache_classes=4 keeps 4 of 10; leave out one"):
            train(tmp_path / "refused", cache_classes=4, **keys)
        assert not (tmp_path / "refused").exists()
    train(tmp_path / "run", **keys)


def test_a_method_of_features_runs_live_and_says_so(tmp_path):
    messages = Messages()
    train(tmp_path / "run", method="at", callback=messages, epochs=1)
    assert any("method 'at' reads more of its teacher than" in text for text in messages.texts)
    assert not (tmp_path / "cache").exists()


def test_a_baseline_has_the_same_views_and_nothing_to_keep(tmp_path):
    messages = Messages()
    train(tmp_path / "run", method="ce", teacher=None, epochs=1, callback=messages)
    assert not (tmp_path / "cache").exists()
    assert any("each image has 2 views all the same" in text for text in messages.texts)


def test_who_declares_it():
    declared = {kind: {n for n in METHODS if METHODS[n].teacher_reads == kind} for kind in KINDS}
    assert declared["outputs"] == {
        *("aicsd", "deit", "dist", "dkd", "kd", "mlkd", "nkd", "ofa-kd", "ttm")
    }
    assert declared["pooled"] == {"crd", "rkd", "wcord"}


KINDS = ("outputs", "pooled")
POOLED = {
    "crd": {"num_negatives": 40},
    "rkd": {},
    "wcord": {"num_negatives": 40},
    "srrl": {},
    "feature-kd": {"spatial_weight": 0.0},
    "kd+rkd": {},
}


@pytest.mark.parametrize("method", POOLED)
def test_pooled_features_are_kept_bit_for_bit(method, tmp_path, forbidden):
    keys = {"method": method, "options": POOLED[method]}
    kept = train(tmp_path / "kept", **keys)
    assert list((tmp_path / "cache").glob("*/*.safetensors"))
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(train_module, "with_teacher_cache", lambda batches, *_: (batches, ""))
        want = train(tmp_path / "live", **keys)
    assert losses(kept) == losses(want)
    assert same_weights(kept, want)
    forbidden()
    train(tmp_path / "other", seed=3, **keys)


OUTPUTS = ("dist", "dkd", "kd", "mlkd", "nkd", "ofa-kd", "ttm")  # of those for any classifier


@pytest.mark.parametrize("method", [*OUTPUTS, "crd", "rkd", "wcord", "srrl", "feature-kd"])
def test_the_teacher_is_not_run_where_the_batch_brings_what_it_gives(method, monkeypatch):
    keys = {"method": method, "options": POOLED.get(method, {})}
    built = build_run(parse(TINY | keys), teacher=teacher()).method
    images = torch.randn(2, 8, 1, 8, 8)
    given = [built.teacher(x) for x in images]
    pooled = [built.teacher.forward_pooled(x)[2] for x in images] if method not in OUTPUTS else ()
    batch = Batch(
        images[0],
        *(torch.arange(8), torch.arange(8), (images[1],)),
        teacher_outputs=tuple(given),
        teacher_pooled=tuple(pooled),
    )

    def fail(*_):
        raise AssertionError("the teacher was run")

    for name in ("forward", "forward_features", "forward_pooled"):
        monkeypatch.setattr(built.teacher, name, fail, raising=False)
    progress = Progress(*(torch.tensor(n) for n in (0, 30, 50, 100)))
    step = built(batch, progress)
    assert torch.isfinite(step.total)
    others = {
        name: tuple(torch.randn_like(x) for x in getattr(batch, name))
        for name in ("teacher_outputs", "teacher_pooled")
    }
    assert built(batch._replace(**others), progress).total != step.total


@pytest.mark.parametrize(
    ("method", "options"), [("feature-kd", {}), ("feature-kd", {"stages": "all"})]
)
def test_options_by_which_maps_are_read_run_live(method, options, tmp_path):
    messages = Messages()
    train(tmp_path / "run", method=method, options=options, callback=messages, epochs=1)
    assert any("reads more of its teacher than" in text for text in messages.texts)
    assert not (tmp_path / "cache").exists()


def test_pooled_features_at_two_taps_run_live(monkeypatch):
    components = build_run(parse(TINY | {"method": "rkd"}), teacher=teacher())
    taps = [SimpleNamespace(names=("layer1", last)) for last in ("layer2", "layer3")]
    monkeypatch.setattr(teacher_cache, "_pooling_teachers", lambda method: taps)
    reason = teacher_cache._live_reason(components, torch.zeros(2, 10))
    assert "last feature in two places" in reason


def test_the_pooled_feature_is_said_described_and_counted(tmp_path):
    messages = Messages()
    train(tmp_path / "run", method="rkd", callback=messages)
    assert any("all of 10 scores and the pooled feature at " in text for text in messages.texts)
    recipe, encoding = parse(TINY), OutputEncoding(10, 10, pooled_width=64)
    files = list((tmp_path / "cache").glob("*/*.safetensors"))
    stored = sum(sum(t.numel() * t.element_size() for t in load_file(f).values()) for f in files)
    assert stored == cache_bytes(recipe, encoding, 70) == 2 * 70 * 4 * (10 + 64 + 1)
    data, net = load_data(recipe), teacher()
    one, other = (describe_outputs(data, recipe, net, encoding, tap) for tap in ("a", "b"))
    assert one != other != described()


def test_maps_of_scenes_are_kept(tmp_path, live):
    torch.manual_seed(0)
    pixels = torch.randint(256, (12, 3, 16, 16), dtype=torch.uint8)
    masks = Masks(torch.randint(3, (12, 16, 16), dtype=torch.uint8))
    images = InMemoryImages(pixels, masks)
    data = selfdistill.data.ImageData(
        "own", images, None, None, list("abc"), (0.5,) * 3, (0.3,) * 3, 0, True, False,
        max_zoom=1.5, task="segmentation",
    )  # fmt: skip
    keys = {"data": data, "model": "fpn/small", "task": "segmentation", "batch_size": 4}
    keys["teacher"] = build("fpn/small", num_classes=3, in_channels=3)
    kept = train(tmp_path / "kept", **keys)
    assert list((tmp_path / "cache").glob("*/*.safetensors"))
    live()
    assert losses(kept) == losses(train(tmp_path / "live", **keys))


@pytest.mark.parametrize("key", ["cache_classes", "cache_precision", "cache_seed", "cache_dir"])
def test_how_to_keep_without_what_to_keep_is_refused(key):
    values = {"cache_classes": 3, "cache_precision": "fp16", "cache_seed": 1, "cache_dir": "x"}
    with pytest.raises(ConfigError, match=f"{key} is about .* give cache_views, too"):
        typed_recipe({key: values[key]})


def described(data=None, net=None, **keys) -> dict:
    recipe = parse({**TINY, **keys})
    data, net = data or load_data(recipe), net or teacher()
    return describe_outputs(data, recipe, net, OutputEncoding(10, 10))


def renormalized() -> nn.Module:
    net = teacher()
    renormalize_inputs(net, ((0.5,), (0.5,)), ((0.4,), (0.5,)))
    return net


def converted() -> nn.Module:
    net = teacher()
    convert_inputs(net, 1)
    return net


def resized() -> nn.Module:
    net = teacher()
    resize_inputs(net, (16, 16))
    return net


def one_pixel_changed():
    data = load_data(parse(TINY))
    pixels = data.train.images.clone()
    pixels[5, 0, 3, 3] ^= 1
    return replace(data, train=InMemoryImages(pixels, data.train.targets))


OTHERS = {
    "weights": lambda: {"net": teacher(1)},
    "input": lambda: {"net": renormalized()},
    "channels": lambda: {"net": converted()},
    "size": lambda: {"net": resized()},
    "pixel": lambda: {"data": one_pixel_changed()},
    "normalization": lambda: {"data": load_data(parse(TINY)).normalized_by((0.1,), (0.2,), "own")},
}
OTHER_KEYS = [
    {"max_train_images": 71}, {"val_fraction": 0.2}, {"cache_seed": 1}, {"crop_padding": 2},
    {"flip": True}, {"max_zoom": 1.2}, {"color_jitter": 0.1}, {"precision": "fp16"},
    {"erase_probability": 0.2}, {"auto_augment": "trivial"}, {"auto_augment": "randaugment"},
    {"hsv_jitter": (0.1, 0.2, 0.3)}, {"shift": 0.1}, {"scale_jitter": 0.1},
    {"mosaic_probability": 0.5},
]  # fmt: skip


@pytest.mark.parametrize("change", OTHERS)
def test_outputs_of_another_teacher_or_data_are_described_otherwise(change):
    assert described(**OTHERS[change]()) != described()


@pytest.mark.parametrize("changed", OTHER_KEYS, ids=str)
def test_other_outputs_are_described_otherwise(changed):
    assert described(**changed) != described()


@pytest.mark.parametrize(
    "changed",
    [{"seed": 1}, {"cache_views": 9}, {"epochs": 2}, {"method": "dkd"}, {"batch_size": 16},
     {"lr": 0.1}, {"model": "cifar/resnet10_w16"}, {"label_smoothing": 0.1}],
    ids=str,
)  # fmt: skip
def test_the_same_outputs_are_described_alike(changed):
    assert described(**changed) == described()


def test_files_are_told_by_names_and_sizes(tmp_path):
    from PIL import Image

    from selfdistill.data import ImageFiles
    from selfdistill.recipe.teacher_cache import _images_digest

    def digest(folder):
        paths = sorted(folder.glob("*.png"))
        return _images_digest(ImageFiles(paths, torch.zeros(len(paths)).long(), (4, 4)))

    folder = tmp_path / "a"
    folder.mkdir()
    for i in range(3):
        Image.new("RGB", (4, 4), (i, i, i)).save(folder / f"{i}.png")
    first = digest(folder)
    assert digest(folder.rename(tmp_path / "b")) == first
    Image.new("RGB", (9, 9)).save(tmp_path / "b" / "1.png")
    assert digest(tmp_path / "b") != first


def test_the_size_that_is_announced_is_the_size_on_the_disk(tmp_path):
    train(tmp_path / "run", cache_classes=3, cache_precision="fp16")
    files = list((tmp_path / "cache").glob("*/*.safetensors"))
    stored = sum(sum(t.numel() * t.element_size() for t in load_file(f).values()) for f in files)
    encoding = OutputEncoding(10, 3, "fp16")
    assert stored == cache_bytes(parse(TINY), encoding, 70) == 2 * 70 * (3 * 3 + 2 + 4)


@pytest.mark.parametrize("method", ["kd", "mlkd"])
def test_a_compiled_method_takes_the_outputs_in_one_graph(method):
    torch._dynamo.reset()
    recipe = parse(TINY | {"method": method})
    components = build_run(recipe, teacher=teacher())
    from lightning_fabric import Fabric

    from selfdistill.recipe.loaders import train_loader

    fabric = Fabric(accelerator="cpu", devices=1)
    batches = train_loader(recipe, components.data, components.method, fabric)
    network = components.teacher.eval()
    components.method.compile(backend="eager", fullgraph=True)
    progress = selfdistill.core.Progress(*(torch.tensor(n) for n in (0, 0, 0, 100)))
    with torch._dynamo.config.patch(error_on_recompile=True):
        for (batch,) in batches.epoch(0):
            outputs = tuple(network(x).detach() for x in (batch.inputs, *batch.views))
            step = components.method(batch._replace(teacher_outputs=outputs), progress)
            assert torch.isfinite(step.total)
