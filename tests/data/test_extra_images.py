"""Images without labels: which are read, and which come at a step, whatever the processes."""

import itertools

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from shard_files import encoded, samples, write_tar

from selfdistill.core import ConfigError, DataError
from selfdistill.data import (
    EvalLoader,
    InMemoryImages,
    Loader,
    LoaderWithExtra,
    read_extra_images,
)
from selfdistill.data.extra_images import ExtraImages, extra_seed
from selfdistill.data.open_image import UnreadableImageError

DRAW = np.random.default_rng(0)
USUAL = {"batch_size": 4, "crop_padding": 1, "flip": True, "mean": (0.5,) * 3, "std": (0.25,) * 3}


def numbered(count: int) -> InMemoryImages:
    """Images of one color each, their number, so that augmentation hides none of them."""
    pixels = torch.arange(count, dtype=torch.uint8)[:, None, None, None].expand(-1, 3, 6, 6)
    return InMemoryImages(pixels.contiguous(), torch.zeros(count, dtype=torch.int64))


def noise(count: int) -> InMemoryImages:
    pixels = torch.from_numpy(DRAW.integers(0, 256, (count, 3, 6, 6), dtype=np.uint8))
    return InMemoryImages(pixels, torch.arange(count) % 2)


TRAINING = noise(14)  # three steps an epoch


def loader(pool, seed: int = 0, **options) -> LoaderWithExtra:
    options = USUAL | options
    extra = Loader(pool, seed=extra_seed(seed), **options)
    unaugmented = EvalLoader(pool, batch_size=4, mean=(0.5,) * 3, std=(0.25,) * 3)
    return LoaderWithExtra(Loader(TRAINING, seed=seed, **options), extra, unaugmented)


def numbers(steps) -> list[int]:
    """The numbers of the extra images of some steps."""
    images = torch.cat([batch.extra for step in steps for batch in step])
    return ((images[:, 0, 3, 3] * 0.25 + 0.5) * 255).round().long().tolist()


def run(batches, epochs: int = 4) -> list:
    return [step for epoch in range(epochs) for step in batches.epoch(epoch)]


def test_chosen_images_are_passed_over_within_each_epoch():
    batches, seen = loader(numbered(20)), []
    for epoch, chosen in enumerate([[1, 4, 9, 11, 13], [2], list(range(20))]):
        batches.choose(torch.tensor(chosen))
        steps = list(batches.epoch(epoch))
        assert len(steps) == 3
        seen = numbers(steps)
        assert set(seen) <= set(chosen)
        assert len(set(seen)) == min(len(chosen), 12)
        for start in (1, 2):  # a run that goes on
            assert numbers(list(batches.epoch(epoch, start))) == seen[4 * start :]
    assert numbers(list(batches.epoch(5))) != seen


@pytest.mark.parametrize("count", [5, 8, 12, 14, 45])
def test_passes_go_on_across_epochs(count):
    batches = loader(numbered(count))
    seen = numbers(run(batches))
    assert len(seen) == 4 * 3 * 4
    whole = count // 4 * 4
    passes = [seen[i : i + whole] for i in range(0, len(seen), whole)]
    assert all(len(set(one)) == len(one) for one in passes)
    assert set(seen) <= set(range(count))
    if len(passes) > 1 and len(passes[1]) == whole > 4:
        assert passes[0] != passes[1]


@settings(max_examples=20, deadline=None)
@given(st.integers(4, 40), st.integers(0, 2**40), st.integers(0, 3), st.integers(0, 2))
def test_a_resume_at_any_step_is_exact(count, seed, epoch, start):
    batches = loader(noise(count), seed)
    steps = run(batches)[epoch * 3 + start : epoch * 3 + 3]
    for (again,), (before,) in zip(batches.epoch(epoch, start), steps, strict=True):
        assert torch.equal(again.extra, before.extra)
        assert torch.equal(again.inputs, before.inputs)


def test_training_images_are_those_without_extra_ones():
    plain = Loader(TRAINING, seed=0, **USUAL)
    pairs = zip(plain.epoch(1), loader(noise(9)).epoch(1), strict=True)
    for (without,), (beside,) in pairs:
        assert torch.equal(without.inputs, beside.inputs)
        assert torch.equal(without.indices, beside.indices)


def test_draws_are_not_those_of_the_training_images():
    """One set on both sides: other images, and other crops and flips of them."""
    batches = list(loader(TRAINING).epoch(0))
    assert not any(torch.equal(batch.inputs, batch.extra) for (batch,) in batches)
    other = next(loader(TRAINING, seed=1).epoch(0))[0]
    assert not torch.equal(other.extra, batches[0][0].extra)


def test_processes_and_micro_batches_share_a_step():
    pool, options = noise(11), {"micro_batches": 2}
    parts = [run(loader(pool, world_size=2, rank=rank, **options)) for rank in (0, 1)]
    for (whole,), *shares in zip(run(loader(pool)), *parts, strict=True):
        assert [len(batch.extra) for share in shares for batch in share] == [1, 1, 1, 1]
        assert torch.equal(
            torch.cat([batch.extra for share in shares for batch in share]), whole.extra
        )


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Pictures of several sizes, in folders of any depth, and what is no picture."""
    root = tmp_path_factory.mktemp("pool") / "pictures"
    for i in range(9):
        place = root / ("", "cats", "dogs/old")[i % 3]
        place.mkdir(parents=True, exist_ok=True)
        pixels = DRAW.integers(0, 256, (6 + i % 2, 8, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(place / f"{i}.png")
    (root / ".hidden").mkdir()
    (root / "notes.docx").write_text("")
    return root


@pytest.mark.parametrize("workers", [1, 2])
def test_workers_change_nothing(folder, workers):
    files = read_extra_images(f"folder:{folder}").images.with_size((6, 6), 1.0)
    plain, decoded = loader(files), loader(files, workers=workers)
    for start in (0, 2):
        pairs = zip(plain.epoch(1, start), decoded.epoch(1, start), strict=True)
        assert all(torch.equal(a.extra, b.extra) for (a,), (b,) in pairs)
    in_memory = loader(files.load_into_memory())
    pairs = zip(plain.epoch(1), in_memory.epoch(1), strict=True)
    assert all(torch.equal(a.extra, b.extra) for (a,), (b,) in pairs)


@pytest.mark.parametrize("shape", [(3, 6, 6), (1, 6, 6), (3, 5, 9)])
def test_a_folder_of_any_nesting(folder, shape):
    pool = read_extra_images(f"folder:{folder}")
    assert (len(pool.images), pool.name) == (9, f"folder:{folder}")
    assert "1 file is passed over" in pool.notes[0]
    images = pool.in_shape(shape)
    assert isinstance(images, InMemoryImages)
    assert images.images.shape == (9, *shape)


def test_digest_is_of_names_and_sizes(folder, tmp_path):
    def digest(root):
        return read_extra_images(f"folder:{root}").sha256

    moved = tmp_path / "moved"
    moved.symlink_to(folder)
    assert digest(moved) == digest(folder)
    copies = [tmp_path / name for name in "ab"]
    for copied in copies:
        copied.mkdir()
        Image.new("RGB", (4, 4)).save(copied / "0.png")
    assert digest(copies[0]) == digest(copies[1])
    Image.new("RGB", (40, 40)).save(copies[1] / "0.png")
    assert digest(copies[0]) != digest(copies[1])
    Image.new("RGB", (4, 4)).save(copies[1] / "0.png")
    (copies[1] / "0.png").rename(copies[1] / "1.png")
    assert digest(copies[0]) != digest(copies[1])


def packed(root, kind, rows):
    """A source of these rows of `samples`, without a label, and its test part of others."""
    if kind == "wds":
        write_tar(root / "train-0.tar", [(f"{name}.png", content) for name, content, _ in rows])
        write_tar(root / "test-0.tar", [("x.png", encoded(99))])
    else:
        datasets = pytest.importorskip("datasets")
        kinds = datasets.Features({"image": datasets.Image()})
        cells = [{"bytes": content, "path": f"{name}.png"} for name, content, _ in rows]
        parts = {"train": cells, "test": cells[:1]}
        datasets.DatasetDict(
            {part: datasets.Dataset.from_dict({"image": c}, kinds) for part, c in parts.items()}
        ).save_to_disk(root)
    return f"{kind}:{root}"


@pytest.mark.parametrize("kind", ["wds", "hf"])
def test_packed_images_are_those_of_a_folder(tmp_path, kind, monkeypatch):
    rows = samples(9)
    for name, content, _ in rows:
        (tmp_path / "pictures").mkdir(exist_ok=True)
        (tmp_path / "pictures" / f"{name}.png").write_bytes(content)
    name = packed(tmp_path / "pool", kind, rows)
    pool, expected = read_extra_images(name), read_extra_images(f"folder:{tmp_path}/pictures")
    every = torch.arange(9)
    for memory in (2 << 30, 0):
        monkeypatch.setattr("selfdistill.data.class_folders._IN_MEMORY", memory)
        ours, theirs = (one.in_shape((3, 6, 6)) for one in (pool, expected))
        assert isinstance(ours, InMemoryImages) == bool(memory)
        assert torch.equal(ours.fetch(every), theirs.fetch(every))
        assert ours.labels.tolist() == [0] * 9
    for workers in (0, 2):
        pairs = zip(loader(ours, workers=workers).epoch(1, 2), loader(theirs).epoch(1, 2),
                    strict=True)  # fmt: skip
        assert all(torch.equal(a.extra, b.extra) for (a,), (b,) in pairs)


@pytest.mark.parametrize("kind", ["wds", "hf"])
def test_digest_of_packed_images(tmp_path, kind):
    rows = samples(6)
    other = [(f"x{name}", *rest) for name, *rest in rows]
    larger = [*rows[:-1], (rows[-1][0], encoded(1, size=(30, 30)), 0)]
    cases = enumerate((rows, rows, other, larger))
    first, again, *changed = (
        read_extra_images(packed(tmp_path / str(number), kind, case)).sha256
        for number, case in cases
    )
    assert first == again
    assert len({first, *changed}) == 3


@pytest.mark.parametrize("name", ["images", "train_images", "x_train"])
@pytest.mark.parametrize("form", [(7, 6, 6), (7, 6, 6, 3)])
def test_archives(tmp_path, name, form):
    pixels = DRAW.integers(0, 256, form, dtype=np.uint8)
    path = tmp_path / "pool.npz"
    np.savez(path, **{name: pixels, "train_labels": np.array(["not", "read"]), "other": 3})
    pool = read_extra_images(f"npz:{path}")
    planes = pixels[:, None] if len(form) == 3 else pixels.transpose(0, 3, 1, 2)
    assert np.array_equal(pool.images.images, planes)
    assert pool.in_shape((3, 6, 6)).shape == (3, 6, 6)
    assert pool.in_shape((1, 12, 8)).images.shape == (7, 1, 12, 8)
    pixels[0, 0, 0] ^= 1
    np.savez(path, **{name: pixels})
    assert read_extra_images(f"npz:{path}").sha256 != pool.sha256


@pytest.mark.parametrize(
    ("arrays", "words"),
    [
        ({"test_images": np.zeros((2, 4, 4), np.uint8)}, "no array 'images' or 'train_images'"),
        ({"images": np.zeros((2, 4, 4))}, "images in .* is float64; it must be uint8"),
        ({"images": np.zeros((0, 4, 4), np.uint8)}, "there is no image in it"),
        ({"images": np.zeros((2, 4), np.uint8)}, r"must be \(N, H, W\) or \(N, H, W, 3\)"),
    ],
)
def test_archives_that_are_refused(tmp_path, arrays, words):
    np.savez(tmp_path / "pool.npz", **arrays)
    with pytest.raises(DataError, match=words):
        read_extra_images(f"npz:{tmp_path / 'pool.npz'}")


def test_sources_that_are_refused(tmp_path):
    for name in ("digits", "npz:", "folder", "zip:pool.zip"):
        with pytest.raises(ConfigError, match=rf"extra = '{name}' is no source of images"):
            read_extra_images(name)
    with pytest.raises(ConfigError, match="did you mean 'folder:"):
        read_extra_images(str(tmp_path))
    with pytest.raises(DataError, match=r"there is no picture in .* or below"):
        read_extra_images(f"folder:{tmp_path}")
    for kind in ("wds", "hf"):
        pytest.importorskip("datasets")
        with pytest.raises(DataError, match=r"there is (no|neither)"):
            read_extra_images(f"{kind}:{tmp_path / 'absent'}")
    for kind in ("folder", "npz"):
        with pytest.raises(DataError, match=f"there is no {'file' if kind == 'npz' else kind} "):
            read_extra_images(f"{kind}:{tmp_path / 'absent'}")
    (tmp_path / "broken.png").write_bytes(b"nothing")
    pool = read_extra_images(f"folder:{tmp_path}")
    with pytest.raises(UnreadableImageError, match=r"broken\.png"):
        pool.in_shape((3, 6, 6))


def test_channels_that_cannot_be_converted():
    with pytest.raises(DataError, match="images of 3 channels and the training images have 4"):
        ExtraImages("npz:x", noise(4), "").in_shape((4, 6, 6))


def test_an_epoch_that_is_left_early_leaves_the_next_as_it_is(folder):
    files = read_extra_images(f"folder:{folder}").images.with_size((6, 6), 1.0)
    batches = loader(files, workers=1)
    list(itertools.islice(batches.epoch(0), 1))
    assert torch.equal(next(batches.epoch(1))[0].extra, next(loader(files).epoch(1))[0].extra)
