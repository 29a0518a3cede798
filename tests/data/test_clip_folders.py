"""Folders of videos as folders of frames and as files, and what is wrong with them."""

import numpy as np
import pytest
import torch
from PIL import Image

from selfdistill.core import DataError
from selfdistill.data import load
from selfdistill.data.clip_folders import list_videos, read_clip_folders
from selfdistill.data.clips import ClipFiles, ClipLength, InMemoryClips
from selfdistill.data.open_image import UnreadableImageError
from selfdistill.data.read_video import count_frames, frame_files, read_frames
from selfdistill.errors import MissingExtraError

CLIP = ClipLength(4)


def write_video(folder, length=6, side=8, start=0):
    """Frames of one gray level each: `start`, `start` + 1, …"""
    folder.mkdir(parents=True)
    for number in range(length):
        pixels = np.full((side, side, 3), start + number, np.uint8)
        Image.fromarray(pixels).save(folder / f"{number}.png")


def write_file(path, length=6, side=32):
    """A lossless video file of gray levels 0, 20, 40, …"""
    av = pytest.importorskip("av")
    path.parent.mkdir(parents=True, exist_ok=True)
    with av.open(path, "w") as container:
        stream = container.add_stream("ffv1", rate=10)
        stream.width = stream.height = side
        stream.pix_fmt = "bgr0"
        for number in range(length):
            pixels = np.full((side, side, 3), 20 * number, np.uint8)
            container.mux(stream.encode(av.VideoFrame.from_ndarray(pixels, format="rgb24")))
        container.mux(stream.encode())


@pytest.fixture
def root(tmp_path):
    for part in ("train", "test"):
        for label in ("run", "jump"):
            for video in range(3):
                write_video(tmp_path / part / label / f"video{video}", start=10 * video)
    return tmp_path


def test_parts_classes_and_videos(root):
    splits = read_clip_folders(root, CLIP)
    assert splits.classes == ["jump", "run"]
    assert splits.val is None
    assert [len(splits.train), len(splits.test)] == [6, 6]
    assert splits.train.labels.tolist() == [0, 0, 0, 1, 1, 1]
    assert splits.train.lengths.tolist() == [6] * 6
    assert splits.notes == ()


def test_a_folder_without_parts_is_all_training(root):
    splits = read_clip_folders(root / "train", CLIP)
    assert len(splits.train) == 6
    assert splits.test is None


def test_loaded_as_any_data(root):
    data = load(f"folder:{root}", task="clips", clip_frames=4, val_fraction=1 / 3)
    assert isinstance(data.train, InMemoryClips)
    assert [len(data.train), len(data.val), len(data.test)] == [4, 2, 6]
    assert data.train.shape == (3, 4, 8, 8)
    assert (data.task, data.crop_padding, data.flip, data.fit) == ("clips", 1, True, "crop")
    assert data.test.fetch(torch.tensor([1]))[0, 0, :, 0, 0].tolist() == [11, 12, 13, 14]


def test_large_sets_are_streamed(root, monkeypatch):
    monkeypatch.setattr("selfdistill.data.class_folders._IN_MEMORY", 1000)
    data = load(f"folder:{root}", task="clips", clip_frames=4, val_fraction=0)
    assert isinstance(data.train, ClipFiles)
    assert data.resized_crop
    assert data.train.fetch(torch.tensor([2]))[0, 0, :, 0, 0].tolist() == [21, 22, 23, 24]


def test_frames_are_ordered_by_their_numbers(tmp_path):
    write_video(tmp_path / "video", length=12)
    levels = [Image.open(path).getpixel((0, 0))[0] for path in frame_files(tmp_path / "video")]
    assert levels == list(range(12))  # 10.png comes before 2.png by the alphabet


def test_videos_may_lie_deeper(root):
    write_video(root / "train/run/group/deep", start=50)
    assert len(read_clip_folders(root, CLIP).train) == 7
    assert len(list_videos(root / "train/run")) == 4


def test_short_videos_are_looped_and_counted(root):
    write_video(root / "train/run/short", length=3, start=100)
    data = load(f"folder:{root}", task="clips", clip_frames=4, val_fraction=0)
    (note,) = data.notes
    assert "1 of 7 train videos are shorter than the 4 frames of a clip" in note
    assert "run/short" in note
    short = data.train.lengths.tolist().index(3)
    clip = data.train.fetch(torch.tensor([short]))[0, 0, :, 0, 0]
    assert clip.tolist() == [100, 101, 102, 100]


def test_short_videos_are_refused(root):
    write_video(root / "test/run/short", length=3)
    with pytest.raises(DataError, match=r"1 of 7 test videos .* --short-videos loop"):
        load(f"folder:{root}", task="clips", clip_frames=4, short_videos="refuse")


def test_a_frame_that_cannot_be_decoded_is_named(root):
    (root / "train/run/video1/3.png").write_bytes(b"no picture")
    with pytest.raises(UnreadableImageError, match=r"cannot read the image .*run/video1/3\.png"):
        load(f"folder:{root}", task="clips", clip_frames=4)


def test_a_set_of_one_class(tmp_path):
    write_video(tmp_path / "train/run/a")
    with pytest.raises(DataError, match="holds 1 folders of classes; two are the least"):
        read_clip_folders(tmp_path, CLIP)


def test_a_class_without_videos(root):
    (root / "train/swim").mkdir()
    with pytest.raises(DataError, match=r"there is no video in .*train/swim"):
        read_clip_folders(root, CLIP)


def test_a_class_that_the_training_part_lacks(root):
    write_video(root / "test/jumb/a")
    with pytest.raises(DataError, match=r"test/jumb is no class of the training set.*'jump'"):
        read_clip_folders(root, CLIP)


def test_pictures_of_a_class_are_no_video(root):
    Image.new("RGB", (8, 8)).save(root / "train/run/0.png")
    with pytest.raises(DataError, match=r"make a folder of each video .*--task classification"):
        read_clip_folders(root, CLIP)


def test_what_lies_beside_the_parts_is_noted(root):
    (root / "extras").mkdir()
    assert "holds extras, which is left out" in read_clip_folders(root, CLIP).notes[0]


def test_video_files(tmp_path):
    for part in ("train", "test"):
        for label in "ab":
            write_file(tmp_path / part / label / "one.mkv")
            write_file(tmp_path / part / label / "two.mkv", length=9)
    data = load(f"folder:{tmp_path}", task="clips", clip_frames=4, val_fraction=0)
    assert data.train.lengths.tolist() == [6, 9, 6, 9]
    clip = data.train.fetch(torch.tensor([1]))[0]
    assert clip.shape == (3, 4, 32, 32)
    assert (clip[:, :, 5, 5] - torch.tensor([40, 60, 80, 100])).abs().max() <= 1


def test_frames_of_a_file_by_their_numbers(tmp_path):
    write_file(tmp_path / "video.mkv")
    frames = read_frames(str(tmp_path / "video.mkv"), [1, 4])
    assert {n: round(f.getpixel((0, 0))[0], -1) for n, f in frames.items()} == {1: 20, 4: 80}
    assert count_frames(str(tmp_path / "video.mkv")) == 6


@pytest.mark.parametrize("kept", [0, 20, 400])
def test_files_that_cannot_be_decoded_are_all_named(tmp_path, kept):
    for label in "ab":
        write_file(tmp_path / label / "good.mkv")
        broken = tmp_path / label / "broken.mkv"
        broken.write_bytes((tmp_path / label / "good.mkv").read_bytes()[:kept])
    with pytest.raises(UnreadableImageError) as refused:
        load(f"folder:{tmp_path}", task="clips", clip_frames=4)
    text = str(refused.value)
    assert text.startswith("cannot read 2 videos: ")
    assert "a/broken.mkv (" in text
    assert "b/broken.mkv (" in text


def test_a_file_that_ends_too_early(tmp_path):
    write_file(tmp_path / "video.mkv")
    with pytest.raises(UnreadableImageError, match="it ends behind frame 6 and is to have 9"):
        read_frames(str(tmp_path / "video.mkv"), [2, 8])


def test_without_the_decoder_its_extra_is_named(tmp_path, monkeypatch):
    for label in "ab":
        (tmp_path / label).mkdir()
        (tmp_path / label / "video.mp4").write_bytes(b"")
    monkeypatch.setitem(__import__("sys").modules, "av", None)
    with pytest.raises(MissingExtraError, match=r"reading video files needs av; .*\[video\]"):
        read_clip_folders(tmp_path, CLIP)


def test_no_decoder_is_imported_for_frames(root):
    import subprocess
    import sys

    code = (
        "import sys; from selfdistill.data import load; "
        f"load('folder:{root}', task='clips', clip_frames=4); assert 'av' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def archive(path, **changes):
    rng = np.random.default_rng(0)
    arrays = {
        "train_clips": rng.integers(0, 256, (6, 5, 8, 8, 3), dtype=np.uint8),
        "train_labels": np.arange(6) % 2,
        "test_clips": rng.integers(0, 256, (4, 5, 8, 8, 3), dtype=np.uint8),
        "test_labels": np.arange(4) % 2,
    }
    arrays |= changes
    np.savez(path, **arrays)
    return arrays


def test_an_archive_of_clips(tmp_path):
    arrays = archive(tmp_path / "clips.npz")
    data = load(f"npz:{tmp_path / 'clips.npz'}", task="clips", clip_frames=3, val_fraction=0)
    assert (len(data.train), data.train.shape) == (6, (3, 3, 8, 8))
    want = arrays["test_clips"][:, 1:4].transpose(0, 4, 1, 2, 3)
    assert np.array_equal(data.test.fetch(torch.arange(4)).numpy(), want)


def test_an_archive_of_gray_clips_of_one_frame_less(tmp_path):
    rng = np.random.default_rng(0)
    gray = {f"{p}_clips": rng.integers(0, 9, (4, 5, 8, 8), np.uint8) for p in ("train", "test")}
    archive(tmp_path / "clips.npz", **gray, train_labels=np.arange(4) % 2)
    data = load(f"npz:{tmp_path / 'clips.npz'}", task="clips", clip_frames=6, val_fraction=0)
    assert data.train.shape == (1, 6, 8, 8)
    assert "4 of 4 train videos are shorter than the 6 frames" in data.notes[0]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"train_clips": np.zeros((6, 8, 8), np.uint8)}, r"must be \(N, L, H, W\)"),
        ({"train_labels": np.arange(30) % 2}, r"for 6 images it must be \(6,\)"),
        ({"test_clips": np.zeros((4, 5, 9, 8, 3), np.uint8)}, "5×9×8|3×9×8|9×8"),
        ({"train_clips": np.zeros((6, 0, 8, 8, 3), np.uint8)}, "there is no image in it"),
        ({"train_clips": np.zeros((6, 5, 8, 8, 3))}, "must be uint8"),
    ],
)
def test_archives_that_are_refused(tmp_path, changes, message):
    archive(tmp_path / "clips.npz", **changes)
    with pytest.raises(DataError, match=message):
        load(f"npz:{tmp_path / 'clips.npz'}", task="clips", clip_frames=3)


def test_an_archive_of_clips_for_classification_is_told(tmp_path):
    archive(tmp_path / "clips.npz")
    with pytest.raises(DataError, match="with --task clips"):
        load(f"npz:{tmp_path / 'clips.npz'}")
