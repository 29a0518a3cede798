"""Batches that bring the teacher's outputs: a live teacher's, at no cost once they are kept."""

from contextlib import closing, nullcontext

import pytest
import torch
from torch import nn

from selfdistill.core import Batch, Frozen
from selfdistill.data import InMemoryImages, Loader
from selfdistill.teacher_cache import CachedTeacherBatches, OutputEncoding, OutputStore
from selfdistill.teacher_cache.store import StoredView

N, CLASSES, CYCLE = 21, 5, 2
PIXELS = torch.randint(256, (N, 3, 8, 8), generator=torch.Generator().manual_seed(0))
IMAGES = InMemoryImages(PIXELS.to(torch.uint8), torch.arange(N) % CLASSES)
SEEN = 24  # images that the teacher is shown in an epoch, of which three fill up the last batch
EXACT = OutputEncoding(CLASSES, CLASSES)


class Counted(nn.Module):
    """A teacher that counts the images that it is shown."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network, self.images = network.eval(), 0

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.images += len(x)
        return self.network(x)


def classifier() -> Counted:
    torch.manual_seed(1)
    layers = nn.Conv2d(3, 6, 3), nn.BatchNorm2d(6), nn.ReLU(), nn.AdaptiveAvgPool2d(2)
    return Counted(nn.Sequential(*layers, nn.Flatten(), nn.Linear(24, CLASSES)))


def loader(seed: int = 0, **options) -> Loader:
    usual = {
        "batch_size": 4,
        "crop_padding": 1,
        "flip": True,
        "mean": (0.5,) * 3,
        "std": (0.2,) * 3,
    }
    usual |= {"view_cycle": CYCLE, "view_seed": 0}
    return Loader(IMAGES, seed=seed, **(usual | options))


def cached(root, teacher, seed=0, encoding=EXACT, **options) -> CachedTeacherBatches:
    store = OutputStore(root, {"encoding": list(encoding)}, N)
    return CachedTeacherBatches(loader(seed, **options), teacher, encoding, store, nullcontext)


def run(batches: CachedTeacherBatches, epochs, start: int = 0) -> list[Batch]:
    return [b for epoch in epochs for step in batches.epoch(epoch, start) for b in step]


def check_exact(batches, teacher: Counted) -> None:
    for batch in batches:
        for view, images in enumerate((batch.inputs, *batch.views)):
            assert torch.equal(
                Frozen(teacher.network).outputs(batch, view), teacher.network(images)
            )


def check_close(batches, teacher: Counted) -> None:
    for batch in batches:
        torch.testing.assert_close(batch.teacher_outputs[0], teacher.network(batch.inputs))


def test_outputs_are_the_live_teachers_bit_for_bit_in_every_round(tmp_path):
    teacher = classifier()
    with torch.no_grad():
        check_exact(run(cached(tmp_path, teacher), range(3 * CYCLE)), teacher)


def test_batches_are_the_loaders(tmp_path):
    mine = run(cached(tmp_path, classifier()), range(3))
    plain = [b for epoch in range(3) for step in loader().epoch(epoch) for b in step]
    for batch, other in zip(mine, plain, strict=True):
        assert torch.equal(batch.inputs, other.inputs)
        assert torch.equal(batch.indices, other.indices)


def test_the_teacher_sees_each_view_once(tmp_path):
    teacher = classifier()
    run(cached(tmp_path, teacher), range(CYCLE))
    assert teacher.images == CYCLE * SEEN
    run(cached(tmp_path, teacher), range(CYCLE, 4 * CYCLE))
    assert teacher.images == CYCLE * SEEN


@pytest.mark.parametrize("options", [{}, {"micro_batches": 2}, {"batch_size": 7}])
def test_students_of_other_seeds_and_batches_share(tmp_path, options):
    teacher, exact = classifier(), not options  # another size of batch may round otherwise
    first = run(cached(tmp_path, teacher), range(CYCLE))
    assert teacher.images == CYCLE * SEEN
    second = run(cached(tmp_path, teacher, seed=7, **options), range(CYCLE))
    assert teacher.images == CYCLE * SEEN
    with torch.no_grad():
        check_exact(second, teacher) if exact else check_close(second, teacher)
    orders = (torch.cat([batch.indices for batch in batches]) for batches in (first, second))
    assert not torch.equal(*(order[:20] for order in orders))


def test_a_longer_cycle_starts_with_the_views_of_a_shorter_one(tmp_path):
    teacher = classifier()
    run(cached(tmp_path, teacher), range(CYCLE))
    run(cached(tmp_path, teacher, view_cycle=CYCLE + 1), range(CYCLE + 1))
    assert teacher.images == (CYCLE + 1) * SEEN


def test_each_view_has_outputs_of_its_own(tmp_path):
    teacher = classifier()
    batches = run(cached(tmp_path, teacher, views=2), range(2 * CYCLE))
    assert teacher.images == 2 * CYCLE * SEEN
    with torch.no_grad():
        check_exact(batches, teacher)
    assert all(len(batch.teacher_outputs) == 2 for batch in batches)
    run(cached(tmp_path, teacher), range(CYCLE))  # the first of them serves methods of one view
    assert teacher.images == 2 * CYCLE * SEEN


def test_a_map_is_that_of_exactly_this_view(tmp_path):
    """A mirrored image is a view of its own: nothing that is read was mirrored."""
    torch.manual_seed(2)
    teacher = Counted(nn.Conv2d(3, CLASSES, 3, padding=1))
    batches = run(cached(tmp_path, teacher, crop_padding=0), range(2 * CYCLE))
    assert teacher.images == CYCLE * SEEN
    with torch.no_grad():
        check_exact(batches, teacher)
    outputs: dict[int, list[torch.Tensor]] = {}
    for batch in batches[: len(batches) // 2]:
        for index, output in zip(batch.indices.tolist(), batch.teacher_outputs[0], strict=True):
            outputs.setdefault(index, []).append(output)
    pairs = [pair for pair in outputs.values() if len(pair) == 2 and not torch.equal(*pair)]
    assert pairs  # flipped in one epoch alone
    assert not any(torch.equal(first, second.flip(-1)) for first, second in pairs)


def test_what_is_kept_in_part_is_the_same_when_computed_and_when_read(tmp_path):
    encoding, teacher = OutputEncoding(CLASSES, 2, "fp16", 4.0), classifier()
    computed = run(cached(tmp_path, teacher, encoding=encoding), range(CYCLE))
    read = run(cached(tmp_path, teacher, encoding=encoding), range(CYCLE))
    assert teacher.images == CYCLE * SEEN
    for batch, other in zip(computed, read, strict=True):
        assert torch.equal(batch.teacher_outputs[0], other.teacher_outputs[0])
        live = encoding.decode(encoding.encode(teacher.network(batch.inputs)))
        assert torch.equal(batch.teacher_outputs[0], live)


def test_a_run_that_stops_within_an_epoch_keeps_what_it_has(tmp_path):
    teacher = classifier()
    with closing(cached(tmp_path, teacher).epoch(0)) as steps:
        next(steps), next(steps)
    batches = cached(tmp_path, teacher)
    with torch.no_grad():
        check_exact(run(batches, [0], start=2), teacher)
    assert teacher.images == SEEN


def test_a_run_that_is_killed_within_an_epoch_loses_no_more_than_time(tmp_path, monkeypatch):
    teacher = classifier()
    with monkeypatch.context() as killed, closing(cached(tmp_path, teacher).epoch(0)) as steps:
        killed.setattr(StoredView, "flush", lambda view: None)
        next(steps), next(steps)
        steps.close()
    assert teacher.images == 8
    with torch.no_grad():
        check_exact(run(cached(tmp_path, teacher), [0], start=2), teacher)
    assert teacher.images == 8 + SEEN  # those of the steps before are computed at the epoch's end
    run(cached(tmp_path, teacher), [CYCLE])
    assert teacher.images == 8 + SEEN


def test_a_damaged_file_is_computed_anew(tmp_path):
    teacher = classifier()
    run(cached(tmp_path, teacher), range(CYCLE))
    first = min(tmp_path.glob("*/*.safetensors"))
    first.write_bytes(first.read_bytes()[:-7])
    with pytest.warns(UserWarning, match="is damaged"), torch.no_grad():
        check_exact(run(cached(tmp_path, teacher), range(CYCLE)), teacher)
    assert teacher.images == (CYCLE + 1) * SEEN


def test_rows_that_are_there_are_read_beside_those_that_are_not(tmp_path):
    teacher = classifier()
    batches = cached(tmp_path, teacher)
    view = batches.store.open(0, 0)
    view.add(torch.arange(0, N, 2), {"scores": torch.full((11, CLASSES), 7.0)})
    view.flush()
    for batch in run(batches, [0]):
        even = batch.indices % 2 == 0
        assert (batch.teacher_outputs[0][even] == 7).all()
        assert (batch.teacher_outputs[0][~even] != 7).all()


def test_training_goes_on_live_on_a_full_disk(tmp_path, monkeypatch):
    teacher = classifier()
    batches = cached(tmp_path, teacher)
    batches.store.writable = False  # as after a write that failed
    with torch.no_grad():
        check_exact(run(batches, range(2 * CYCLE)), teacher)
    assert teacher.images == 2 * CYCLE * 20
    assert not list(tmp_path.glob("*/*.safetensors"))


def test_many_small_files_where_rows_are_large(tmp_path, monkeypatch):
    monkeypatch.setattr("selfdistill.teacher_cache.batches._FLUSHED_BYTES", 1)
    teacher = classifier()
    batches = run(cached(tmp_path, teacher), range(2 * CYCLE))
    assert len(list(tmp_path.glob("*/*.safetensors"))) == CYCLE * 6
    assert teacher.images == CYCLE * SEEN
    with torch.no_grad():
        check_exact(batches, teacher)


@pytest.mark.parametrize("size", [2, 3])
def test_processes_share_what_they_keep(tmp_path, size):
    teacher = classifier()
    for epoch in range(CYCLE):
        for rank in range(size):
            run(cached(tmp_path, teacher, batch_size=6, rank=rank, world_size=size), [epoch])
    assert teacher.images == CYCLE * SEEN
    run(cached(tmp_path, teacher), range(CYCLE))
    assert teacher.images == CYCLE * SEEN
