"""Images of every mode, depth and orientation, compared with numpy; what is not opened."""

import io
import os
import pickle
import re

import numpy as np
import pytest
from PIL import Image

from selfdistill.core import DataError
from selfdistill.data import open_image
from selfdistill.data.images import ImageFiles, map_images
from selfdistill.data.open_image import UnreadableImageError, image_size, open_rgb

CORNERS = np.arange(1, 7, dtype=np.uint8).reshape(2, 3) * 40
SHOWN = {  # what each orientation of EXIF means for rows and columns
    1: CORNERS,
    2: CORNERS[:, ::-1],
    3: CORNERS[::-1, ::-1],
    4: CORNERS[::-1],
    5: CORNERS.T,
    6: np.rot90(CORNERS, -1),
    7: np.rot90(CORNERS, 2).T,
    8: np.rot90(CORNERS),
}


def pixels(path) -> np.ndarray:
    return np.array(open_rgb(str(path)))


@pytest.mark.parametrize("ending", ["png", "tif", "webp"])
@pytest.mark.parametrize("orientation", SHOWN)
def test_an_image_is_turned_as_it_is_shown(tmp_path, ending, orientation):
    exif = Image.Exif()
    exif[0x0112] = orientation
    file = tmp_path / f"x.{ending}"
    options = {"lossless": True} if ending == "webp" else {}
    Image.fromarray(CORNERS).convert("RGB").save(file, exif=exif, **options)
    np.testing.assert_array_equal(pixels(file)[..., 0], SHOWN[orientation])
    assert image_size(str(file)) == SHOWN[orientation].shape


def test_a_photograph_is_turned_in_a_streamed_batch_too(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6
    wide = np.zeros((16, 32, 3), np.uint8)
    wide[:, :16] = 255
    Image.fromarray(wide).save(tmp_path / "x.jpg", exif=exif, quality=95)
    files = ImageFiles([tmp_path / "x.jpg"], np.zeros(1, int), (32, 16))
    assert files.stored_size(0) == (32, 16)
    image = files.fit_to_size(files.open(0))[0]
    assert image[:14].min() > 200
    assert image[18:].max() < 50


@pytest.mark.parametrize("mode", ["RGBA", "LA", "P", "RGB"])
def test_transparent_pixels_are_white(tmp_path, mode):
    if mode == "P":
        image = Image.new("P", (2, 1))
        image.putpalette([0, 0, 0, 10, 20, 30])
        image.putdata([0, 1])
        image.save(tmp_path / "x.png", transparency=0)
    elif mode == "RGB":
        image = Image.new("RGB", (2, 1))
        image.putdata([(0, 0, 0), (10, 20, 30)])
        image.save(tmp_path / "x.png", transparency=(0, 0, 0))
    else:
        image = Image.new("RGBA", (2, 1))
        image.putdata([(0, 0, 0, 0), (10, 20, 30, 255)])
        image.convert(mode).save(tmp_path / "x.png")
    result = pixels(tmp_path / "x.png")[0]
    assert result[0].tolist() == [255] * 3
    assert (result[1] < 40).all()


@pytest.mark.parametrize("ending", ["png", "tif", "pgm"])
def test_sixteen_bits_are_scaled(tmp_path, ending):
    values = np.array([[0, 257, 32896, 65535]], dtype=np.uint16)
    Image.fromarray(values).save(tmp_path / f"x.{ending}")
    assert pixels(tmp_path / f"x.{ending}")[0, :, 0].tolist() == [0, 1, 128, 255]


def test_a_depth_of_twelve_bits_is_scaled(tmp_path):
    (tmp_path / "x.pgm").write_bytes(b"P5 2 1 4095\n\x0f\xff\x08\x00")
    assert pixels(tmp_path / "x.pgm")[0, :, 0].tolist() == [255, 128]


@pytest.mark.parametrize("mode", ["1", "L", "P", "CMYK", "YCbCr"])
@pytest.mark.parametrize("ending", ["png", "jpg", "tif", "gif", "bmp"])
def test_other_modes_keep_their_colors(tmp_path, mode, ending):
    white = Image.new("RGB", (8, 8), "white").convert(mode)
    # Pillow 12.3 cannot read such a TIFF that it wrote without compression
    packed = {"compression": "tiff_lzw"} if (mode, ending) == ("YCbCr", "tif") else {}
    try:
        white.save(tmp_path / f"x.{ending}", **packed)
    except (OSError, ValueError):
        return  # there is no such file
    assert pixels(tmp_path / f"x.{ending}").min() >= 254


@pytest.mark.parametrize("dtype", [np.float32, np.int32])
def test_pixels_without_a_range_are_refused(tmp_path, dtype):
    Image.fromarray(np.ones((2, 2), dtype)).save(tmp_path / "x.tif")
    with pytest.raises(DataError, match=r"x\.tif \(.*no known range"):
        pixels(tmp_path / "x.tif")


@pytest.mark.parametrize("ending", ["eps", "pdf", "ico", "tga", "pcx"])
def test_no_other_decoder_is_started_whatever_the_name(tmp_path, ending):
    stream = io.BytesIO()
    Image.new("RGB", (16, 16)).save(stream, {"tga": "TGA"}.get(ending, ending.upper()))
    (tmp_path / "x.png").write_bytes(stream.getvalue())
    for read in (open_rgb, image_size):
        with pytest.raises(DataError, match="of none of the formats PNG, JPEG"):
            read(str(tmp_path / "x.png"))


def test_endings_are_pillows_for_these_formats():
    known = {e for e, f in Image.registered_extensions().items() if f in open_image.FORMATS}
    assert set(open_image.EXTENSIONS) == known


def test_a_large_image_is_refused_before_it_is_decoded(tmp_path, monkeypatch):
    Image.new("L", (100, 100)).save(tmp_path / "x.png")
    monkeypatch.setattr(open_image, "MAX_PIXELS", 9_999)
    with pytest.raises(DataError, match="100×100 are more than 9,999 pixels"):
        image_size(str(tmp_path / "x.png"))
    header = b"P5 50000 50000 255\n"
    (tmp_path / "x.pgm").write_bytes(header)
    with pytest.raises(DataError, match=r"x\.pgm"):
        open_rgb(str(tmp_path / "x.pgm"))


@pytest.mark.parametrize("content", [b"", b"no image", "cut", "pipe", "missing", "loop"])
def test_what_cannot_be_read_is_named(tmp_path, content):
    file = tmp_path / "x.png"
    if content == "pipe":
        os.mkfifo(file)
    elif content == "loop":
        file.symlink_to(file)
    elif content == "cut":
        Image.new("RGB", (64, 64), "red").save(file)
        file.write_bytes(file.read_bytes()[:-30])
    elif content != "missing":
        file.write_bytes(content)
    with pytest.raises(DataError, match=re.escape(str(file))) as error:
        open_rgb(str(file))
    assert "\n" not in str(error.value)


def test_all_that_cannot_be_read_are_named_at_once(tmp_path):
    files = [str(tmp_path / f"{i:02}.png") for i in range(30)]
    with pytest.raises(UnreadableImageError) as error:
        map_images(open_rgb, files)
    assert str(error.value).startswith("cannot read 30 images: ")
    assert "19.png" in str(error.value)
    assert "20.png" not in str(error.value)
    assert "and 10 more; replace or remove the files" in str(error.value)
    assert str(pickle.loads(pickle.dumps(error.value))) == str(error.value)
