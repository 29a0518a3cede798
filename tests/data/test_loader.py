import os
import signal

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from selfdistill.core import Batch, ConfigError, DataError, ResourceError
from selfdistill.data import EvalLoader, ImageFiles, InMemoryImages, Loader

MOMENTS = {"mean": (0.5,) * 3, "std": (0.25,) * 3}
PIXELS = np.random.default_rng(0).integers(0, 256, (23, 12, 12, 3), dtype=np.uint8)
LABELS = torch.arange(23) % 4
RESIDENT = InMemoryImages(torch.from_numpy(PIXELS).permute(0, 3, 1, 2).contiguous(), LABELS)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    root = tmp_path_factory.mktemp("pictures")
    for i, pixels in enumerate(PIXELS):
        Image.fromarray(pixels).save(root / f"{i}.png")
    return ImageFiles([root / f"{i}.png" for i in range(23)], LABELS, (12, 12))


def loader(images=RESIDENT, **options) -> Loader:
    usual = {"batch_size": 8, "seed": 0, "crop_padding": 2, "flip": True, **MOMENTS}
    return Loader(images, **(usual | options))


def flat(steps) -> list[torch.Tensor]:
    """Every tensor of the batches of an epoch."""
    batches = [b for step in steps for b in step]
    parts = [(b.inputs, b.targets, b.indices, *b.views, b.same_class_inputs) for b in batches]
    return [tensor for part in parts for tensor in part if tensor is not None]


def same(first, second) -> bool:
    first, second = flat(first), flat(second)
    return len(first) == len(second) and all(map(torch.equal, first, second))


def joined(batches: list[Batch]) -> Batch:
    full = Batch(*(torch.cat(parts) for parts in list(zip(*batches, strict=True))[:3]))
    if batches[0].same_class_inputs is None:
        return full
    return full._replace(same_class_inputs=torch.cat([b.same_class_inputs for b in batches]))


def test_an_epoch_sees_each_sample_at_most_once():
    steps = list(loader().epoch(0))
    assert len(steps) == loader().steps_per_epoch == 2
    visible = torch.cat([b.indices for step in steps for b in step]).tolist()
    assert len(set(visible)) == len(visible) == 16


def test_a_set_that_divides_is_seen_whole():
    visible = torch.cat([b.indices for step in loader(batch_size=1).epoch(3) for b in step])
    assert sorted(visible.tolist()) == list(range(23))


def test_labels_belong_to_their_images():
    plain = loader(crop_padding=0, flip=False)
    for (batch,) in plain.epoch(0):
        want = (RESIDENT.images[batch.indices].numpy() / 255 - 0.5) / 0.25
        np.testing.assert_allclose(batch.inputs, want, atol=2e-6)
        assert torch.equal(batch.targets, LABELS[batch.indices])


@pytest.mark.parametrize("key", [{"seed": 1}, {"epoch": 1}])
def test_seed_and_epoch_change_order_and_pixels(key):
    epoch = key.get("epoch", 0)
    first, second = next(loader().epoch(0)), next(loader(seed=key.get("seed", 0)).epoch(epoch))
    assert not torch.equal(first[0].indices, second[0].indices)
    assert not torch.equal(first[0].inputs, second[0].inputs)


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 6), st.integers(0, 3), st.integers(0, 2**40), st.booleans())
def test_resume_is_exact(start, epoch, seed, resized):
    options = {
        "batch_size": 4,
        "seed": seed,
        "resized_crop": resized,
        "views": 2,
        "same_class": True,
    }
    full = list(loader(**options).epoch(epoch))
    assert same(loader(**options).epoch(epoch, start), full[start:])


@pytest.mark.parametrize("resized_crop", [False, True])
@pytest.mark.parametrize("channels_last", [False, True])
def test_processes_and_micro_batches_make_up_the_batch(resized_crop, channels_last):
    options = {"resized_crop": resized_crop, "channels_last": channels_last, "same_class": True}
    parts = [
        list(loader(world_size=2, rank=r, micro_batches=2, **options).epoch(1)) for r in (0, 1)
    ]
    for step, (full,) in enumerate(loader(**options).epoch(1)):
        assert [len(part[step]) for part in parts] == [2, 2]
        together = joined([b for part in parts for b in part[step]])
        assert all(map(torch.equal, together[:3], full[:3]))
        assert torch.equal(together.same_class_inputs, full.same_class_inputs)


def test_views_differ_and_the_first_is_the_same_without_them():
    (batch,) = next(loader(views=3).epoch(0))
    assert len(batch.views) == 2
    assert not torch.equal(batch.inputs, batch.views[0])
    assert not torch.equal(batch.views[0], batch.views[1])
    assert torch.equal(batch.inputs, next(loader().epoch(0))[0].inputs)


def test_memory_format_changes_no_value():
    for (plain,), (last,) in zip(
        loader().epoch(0), loader(channels_last=True).epoch(0), strict=True
    ):
        assert last.inputs.is_contiguous(memory_format=torch.channels_last)
        assert torch.equal(plain.inputs, last.inputs)


def test_streaming_equals_memory_where_sizes_agree(folder):
    assert same(loader(folder, views=2).epoch(2), loader(views=2).epoch(2))
    options = {"views": 2, "same_class": True}
    assert same(loader(folder, **options).epoch(2), loader(**options).epoch(2))


@pytest.mark.parametrize("start", [0, 1])
@pytest.mark.parametrize("partners", [False, True])
def test_number_of_workers_changes_nothing(folder, start, partners):
    options = {"resized_crop": True, "views": 2, "micro_batches": 2, "same_class": partners}
    alone = list(loader(folder, **options).epoch(1))
    assert same(loader(folder, workers=2, **options).epoch(1, start), alone[start:])


def test_streamed_boxes_differ_between_views(folder):
    (batch,) = next(loader(folder, resized_crop=True, crop_padding=0, flip=False, views=2).epoch(0))
    assert not torch.equal(batch.inputs, batch.views[0])


def result(images: torch.Tensor) -> torch.Tensor:
    """Which training images these are, where nothing was augmented."""
    pixels = ((images * 0.25 + 0.5) * 255).round().to(torch.uint8)
    return (pixels[:, None] == RESIDENT.images).flatten(2).all(2).int().argmax(1)


@pytest.mark.parametrize("streamed", [False, True])
def test_partners_are_images_of_the_same_class(folder, streamed):
    plain = loader(
        folder if streamed else RESIDENT, crop_padding=0, flip=False, same_class=True, views=2
    )
    partners = [
        (b.indices, result(b.same_class_inputs))
        for epoch in range(3)
        for (b,) in plain.epoch(epoch)
    ]
    assert all(torch.equal(LABELS[ours], LABELS[partner_label]) for ours, partner_label in partners)
    assert any(not torch.equal(ours, partner_label) for ours, partner_label in partners)


def test_partners_change_nothing_else():
    assert next(loader().epoch(0))[0].same_class_inputs is None
    with_, without = (next(loader(same_class=p, views=2).epoch(0))[0] for p in (True, False))
    assert torch.equal(with_.inputs, without.inputs)
    assert torch.equal(with_.views[0], without.views[0])
    assert with_.same_class_inputs.shape == with_.inputs.shape


@pytest.mark.parametrize("streamed", [False, True])
@pytest.mark.parametrize(
    "options", [{"crop_padding": 2}, {"crop_padding": 0, "flip": True}, {"resized_crop": True}]
)
def test_one_partner_of_two_images_is_augmented_apart(tmp_path, streamed, options):
    """Ten copies of one picture: all partners are the same, and no two draws of their cut."""
    pixels = torch.from_numpy(PIXELS[:1]).permute(0, 3, 1, 2).repeat(10, 1, 1, 1).contiguous()
    labels = torch.zeros(10, dtype=torch.int64)
    Image.fromarray(PIXELS[0]).save(tmp_path / "one.png")
    folder = ImageFiles([tmp_path / "one.png"] * 10, labels, (12, 12))
    usual = {"crop_padding": 0, "flip": False, "batch_size": 10, "same_class": True, "views": 2}
    images = folder if streamed else InMemoryImages(pixels, labels)
    (batch,) = next(loader(images, **(usual | options)).epoch(0))
    cuts = {tuple(partner.flatten().tolist()) for partner in batch.same_class_inputs}
    assert len(cuts) > (1 if "flip" in options else 5)
    assert not torch.equal(batch.same_class_inputs, batch.inputs)
    assert not torch.equal(batch.same_class_inputs, batch.views[0])


@pytest.mark.parametrize("workers", [0, 2])
def test_global_generators_are_untouched(folder, workers):
    torch.manual_seed(0)
    before, numpy_before = torch.get_rng_state(), np.random.get_state()[1].copy()
    for images in (RESIDENT, folder):
        list(loader(images, resized_crop=True, workers=workers, same_class=True).epoch(0))
        list(EvalLoader(images, batch_size=9, workers=workers, **MOMENTS))
    assert torch.equal(torch.get_rng_state(), before)
    np.testing.assert_array_equal(np.random.get_state()[1], numpy_before)


@pytest.mark.parametrize("workers", [0, 2])
def test_a_broken_picture_is_named_in_one_sentence(folder, tmp_path, workers):
    broken = tmp_path / "broken.png"
    broken.write_bytes(b"no picture")
    images = ImageFiles([*(folder.path(i) for i in range(22)), broken], LABELS, (12, 12))
    with pytest.raises(DataError, match=r"cannot read the image .*broken\.png") as fault:
        list(loader(images, batch_size=1, workers=workers).epoch(0))
    assert "\n" not in str(fault.value)


class Dying(ImageFiles):
    def open(self, directory):
        os._exit(1)


class Killed(ImageFiles):
    def open(self, directory):
        os.kill(os.getpid(), signal.SIGKILL)


@pytest.mark.parametrize("kind", [Dying, Killed])
@pytest.mark.parametrize("workers", [1, 2])
def test_a_dead_worker_is_a_lack_of_resources(folder, kind, workers):
    images = kind([folder.path(i) for i in range(23)], LABELS, (12, 12))
    with pytest.raises(ResourceError, match="lower the number of workers"):
        list(loader(images, workers=workers).epoch(0))


class Stopped(ImageFiles):
    """Each worker gets the signals of its process group, as after Ctrl-C."""

    def open(self, directory):
        for number in (signal.SIGTERM, signal.SIGINT):
            os.kill(os.getpid(), number)
        return super().open(directory)


def test_signals_to_all_processes_stop_no_worker(folder):
    images = Stopped([folder.path(i) for i in range(23)], LABELS, (12, 12))
    alone = loader(folder, batch_size=4).epoch(0)
    assert same(loader(images, batch_size=4, workers=2).epoch(0), list(alone))


def test_batch_that_does_not_divide():
    with pytest.raises(
        ConfigError, match=r"world_size · micro_batches = 6 .*nearest that does is 12"
    ):
        loader(batch_size=10, world_size=3, micro_batches=2)
    with pytest.raises(ConfigError, match="nearest that does is 1"):
        loader(batch_size=0)


def test_too_few_images():
    with pytest.raises(DataError, match="23 training images do not fill one batch of 24; lower"):
        loader(batch_size=24)


@pytest.mark.parametrize("world_size", [1, 2, 3, 30])
def test_evaluation_sees_every_sample_once_in_order(world_size):
    parts = [
        EvalLoader(RESIDENT, batch_size=5, rank=r, world_size=world_size, **MOMENTS)
        for r in range(world_size)
    ]
    batches = [b for part in parts for b in part]
    assert len(batches) == sum(map(len, parts))
    full = joined(batches)
    assert full.indices.tolist() == list(range(23))
    assert torch.equal(full.targets, LABELS)
    want = (RESIDENT.images.numpy() / 255 - 0.5) / 0.25
    np.testing.assert_allclose(full.inputs, want, atol=2e-6)


@pytest.mark.parametrize("workers", [0, 2])
def test_evaluation_of_files_equals_memory(folder, workers):
    streamed = EvalLoader(folder, batch_size=10, workers=workers, **MOMENTS)
    resident = EvalLoader(RESIDENT, batch_size=10, **MOMENTS)
    for _ in range(2):  # it can be walked again
        assert same([list(streamed)], [list(resident)])


def test_views_come_again_after_a_cycle_in_another_order():
    cycled = loader(view_cycle=2, view_seed=5, batch_size=1, views=2)
    rounds = [{int(b.indices): b for (b,) in cycled.epoch(epoch)} for epoch in range(4)]
    assert list(rounds[0]) != list(rounds[2])
    for first, second in ((0, 2), (1, 3)):
        for index, batch in rounds[first].items():
            again = rounds[second][index]
            assert torch.equal(batch.inputs, again.inputs)
            assert torch.equal(batch.views[0], again.views[0])
    assert any(not torch.equal(b.inputs, rounds[1][i].inputs) for i, b in rounds[0].items())


def test_views_depend_on_their_own_seed_alone():
    batches = [
        {int(b.indices): b.inputs for (b,) in loader(seed=seed, view_seed=5, batch_size=1).epoch(1)}
        for seed in (0, 1)
    ]
    assert list(batches[0]) != list(batches[1])
    assert all(torch.equal(inputs, batches[1][i]) for i, inputs in batches[0].items())


def test_views_of_files_come_again(folder):
    cycled = loader(folder, view_cycle=1, view_seed=0, batch_size=1, resized_crop=True)
    rounds = [{int(b.indices): b.inputs for (b,) in cycled.epoch(epoch)} for epoch in (0, 3)]
    assert all(torch.equal(inputs, rounds[1][i]) for i, inputs in rounds[0].items())


@pytest.mark.parametrize("world_size", [1, 2, 4])
def test_batches_and_what_is_left_out_are_all_samples(world_size):
    parts = [loader(rank=rank, world_size=world_size) for rank in range(world_size)]
    seen = [each.order(3).flatten() for each in parts] + [each.left_out(3) for each in parts]
    assert sorted(torch.cat(seen).tolist()) == list(range(23))
