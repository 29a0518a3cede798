"""Clips of videos: which frames they are, and that all frames of one are moved alike."""

import numpy as np
import pytest
import torch
from PIL import Image

from selfdistill.data import EvalLoader, Loader
from selfdistill.data.clips import ClipFiles, ClipLength, InMemoryClips
from selfdistill.data.hold_out import hold_out

RNG = np.random.default_rng(0)
LENGTHS = [12, 5, 9, 20, 3, 8]
VIDEOS = [RNG.integers(0, 256, (n, 10, 12, 3), dtype=np.uint8) for n in LENGTHS]
LABELS = torch.arange(6) % 2
CLIP = ClipLength(4, 2)
PLAIN = {"mean": (0.0,) * 3, "std": (1 / 255,) * 3}  # bytes come out as they are, as floats


def in_memory(clip: ClipLength = CLIP) -> InMemoryClips:
    frames = torch.from_numpy(np.concatenate(VIDEOS)).permute(0, 3, 1, 2).contiguous()
    return InMemoryClips(frames, torch.tensor(LENGTHS), LABELS, clip)


@pytest.fixture(scope="module")
def files(tmp_path_factory) -> ClipFiles:
    root = tmp_path_factory.mktemp("videos")
    for i, video in enumerate(VIDEOS):
        (root / f"{i}").mkdir()
        for number, pixels in enumerate(video):
            Image.fromarray(pixels).save(root / f"{i}" / f"frame{number}.png")
    paths = [root / f"{i}" for i in range(len(VIDEOS))]
    return ClipFiles(paths, torch.tensor(LENGTHS), LABELS, CLIP, (10, 12))


def frames(video: int, numbers: list[int]) -> torch.Tensor:
    """(C, T, H, W) of a video."""
    return torch.from_numpy(VIDEOS[video][numbers]).permute(3, 0, 1, 2)


def loader(videos, **options) -> Loader:
    usual = {"batch_size": 2, "seed": 0, "crop_padding": 0, "flip": False, **PLAIN}
    return Loader(videos, **(usual | options))


def inputs(steps) -> list[torch.Tensor]:
    return [tensor for (batch,) in steps for tensor in (batch.inputs, *batch.views)]


def test_central_frames():
    numbers = CLIP.central(torch.tensor([12, 7, 8]))
    assert CLIP.span == 7
    assert numbers.tolist() == [[2, 4, 6, 8], [0, 2, 4, 6], [0, 2, 4, 6]]


def test_a_short_video_starts_again():
    assert CLIP.central(torch.tensor([5, 1])).tolist() == [[0, 2, 4, 1], [0, 0, 0, 0]]


def test_random_starts_are_uniform_and_stay_inside():
    lengths = torch.full((4000,), 10)
    numbers = CLIP.random(lengths, 0, 0, torch.arange(4000))
    assert torch.equal(numbers - numbers[:, :1], torch.arange(0, 8, 2).expand(4000, -1))
    counts = torch.bincount(numbers[:, 0])
    assert len(counts) == 4  # 0 … 10 − 7
    assert (counts - 1000).abs().max() < 120  # four standard deviations


def test_a_start_is_keyed_by_seed_epoch_sample_and_view():
    lengths, sample = torch.full((64,), 1000), torch.arange(64)
    starts = [
        CLIP.random(lengths, seed, epoch, sample, view)[:, 0].tolist()
        for seed, epoch, view in ((0, 0, 0), (1, 0, 0), (0, 1, 0), (0, 0, 1))
    ]
    assert len({tuple(one) for one in starts}) == 4
    alone = CLIP.random(lengths[:1], 0, 0, sample[7:8])
    assert alone[0, 0] == starts[0][7]


@pytest.mark.parametrize("video", range(6))
def test_the_clip_for_evaluation_is_the_central_one(files, video):
    [numbers] = CLIP.central(torch.tensor(LENGTHS)[[video]]).tolist()
    for videos in (in_memory(), files):
        assert videos.shape == (3, 4, 10, 12)
        assert torch.equal(videos.fetch(torch.tensor([video]))[0], frames(video, numbers))


def test_files_decode_to_the_same_videos(files):
    decoded = files.load_into_memory()
    assert torch.equal(decoded.images, in_memory().images)
    assert files.num_pictures == sum(LENGTHS)


def test_random_clips_are_of_the_keyed_frames(files):
    sample = torch.tensor([4, 3])
    numbers = CLIP.random(torch.tensor(LENGTHS)[sample], 5, 1, sample, 1).tolist()
    clips = in_memory().fetch_view(sample, 5, 1, sample, 1)
    for clip, video, own in zip(clips, sample.tolist(), numbers, strict=True):
        assert torch.equal(clip, frames(video, own))


def test_a_subset_has_its_own_frames_alone():
    videos = in_memory()
    subset = videos.take(torch.tensor([3, 1]))
    assert subset.lengths.tolist() == [20, 5]
    assert len(subset.images) == 25
    assert torch.equal(subset.fetch(torch.tensor([1, 0])), videos.fetch(torch.tensor([1, 3])))


def test_moments_are_those_of_all_frames_and_of_no_other_part():
    train, held_out = hold_out(in_memory(), 2, "validation")
    assert len(train) == 4
    assert len(held_out) == 2
    index = [i for i, n in enumerate(LENGTHS) if n in train.lengths.tolist()]
    pixels = np.concatenate([VIDEOS[i].reshape(-1, 3) for i in index]) / 255
    mean, std = train.mean_and_std()
    np.testing.assert_allclose(mean, pixels.mean(0))
    np.testing.assert_allclose(std, pixels.std(0))


def test_gray_and_smaller_videos(files):
    for videos in (in_memory().resized((5, 6)).with_channels(1), files.with_channels(1)):
        sides = (5, 6) if isinstance(videos, InMemoryClips) else (10, 12)
        assert videos.shape == (1, 4, *sides)
        assert videos.fetch(torch.tensor([0, 2])).shape == (2, 1, 4, *sides)


@pytest.mark.parametrize("keywords", [{"crop_padding": 3, "flip": True}, {"resized_crop": True}])
def test_all_frames_of_a_clip_are_moved_alike(keywords):
    still = torch.from_numpy(VIDEOS[0][:6]).permute(0, 3, 1, 2).repeat_interleave(8, 0)
    videos = InMemoryClips(still.contiguous(), torch.full((6,), 8), LABELS, ClipLength(4))
    for clips in inputs(loader(videos, views=2, **keywords).epoch(0)):
        assert clips.shape == (2, 3, 4, 10, 12)
        assert torch.equal(clips, clips[:, :, :1].expand_as(clips))


def test_a_clip_is_moved_as_an_image_is():
    """The draw is that of the sample, so one frame alone is moved as the whole clip."""
    videos = in_memory(ClipLength(1))
    images = type(videos).__mro__[1](videos.fetch(torch.arange(6))[:, :, 0], LABELS)
    keywords = {"crop_padding": 3, "flip": True, "batch_size": 6}
    (clips,), (pictures,) = (
        inputs(loader(v, **keywords).epoch(0))
        for v in (InMemoryClips(images.images, torch.ones(6).long(), LABELS, ClipLength(1)), images)
    )
    assert torch.equal(clips[:, :, 0], pictures)


def test_two_views_are_two_clips():
    long = torch.arange(200, dtype=torch.uint8)[:, None, None, None].expand(200, 3, 4, 4)
    videos = InMemoryClips(long.contiguous(), torch.tensor([100, 100]), LABELS[:2], ClipLength(8))
    first, second = inputs(loader(videos, views=2).epoch(0))
    starts = first[:, 0, 0, 0, 0], second[:, 0, 0, 0, 0]
    assert (starts[0] != starts[1]).all()
    assert torch.equal((first - first[:, :, :1])[0, 0, :, 0, 0], torch.arange(8.0))


@pytest.mark.parametrize("workers", [0, 2])
def test_streamed_batches_are_a_function_of_their_keys(files, workers):
    options = {"resized_crop": True, "flip": True, "views": 2, "same_class": True}
    whole = inputs(loader(files, **options).epoch(1))
    resumed = inputs(loader(files, workers=workers, **options).epoch(1, start=1))
    assert whole[0].shape == (2, 3, 4, 10, 12)
    assert all(map(torch.equal, whole[2:], resumed))


def test_evaluation_reads_every_video_once(files):
    for videos in (in_memory(), files):
        batches = list(EvalLoader(videos, batch_size=4, **PLAIN))
        clips = torch.cat([batch.inputs for batch in batches])
        assert torch.equal(clips, videos.fetch(torch.arange(6)).float())


def test_channels_last_changes_the_memory_format_alone():
    plain, last = (inputs(loader(in_memory(), channels_last=c).epoch(0))[0] for c in (False, True))
    assert torch.equal(plain, last)
    assert last.is_contiguous(memory_format=torch.channels_last_3d)
