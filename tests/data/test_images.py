import os
from pathlib import Path

import clip_writer
import numpy as np
import pytest
from PIL import Image

from imas_jax import errors
from imas_jax.data import images

PICTURE = clip_writer.texture((24, 40))


@pytest.mark.parametrize("suffix", [".png", ".bmp", ".ppm", ".tif", ".webp", ".jpg"])
def test_every_supported_type_reads_as_rgb(tmp_path, suffix):
    path = tmp_path / f"a{suffix}"
    Image.fromarray(PICTURE).save(path, quality=95)
    assert images.is_image(path)
    assert images.inspect(path) == images.Header((24, 40))
    error = np.abs(images.read_image(path).astype(int) - PICTURE)
    assert error.mean() < (6 if suffix in (".webp", ".jpg") else 1e-9)


def test_grey_is_repeated_in_every_channel(tmp_path):
    grey = PICTURE[..., 0]
    path = clip_writer.save(tmp_path / "grey.png", grey)
    assert (images.read_image(path) == grey[..., None]).all()


def test_alpha_is_dropped_and_not_composited(tmp_path):
    alpha = np.zeros((24, 40, 1), np.uint8)
    path = clip_writer.save(
        tmp_path / "rgba.png", np.concatenate([PICTURE, alpha], axis=-1)
    )
    assert (images.read_image(path) == PICTURE).all()


def test_sixteen_bit_grey_keeps_the_high_byte(tmp_path):
    wide = PICTURE[..., 0].astype(np.uint16) * 256 + 77
    path = clip_writer.save(tmp_path / "wide.png", wide)
    assert (images.read_image(path) == PICTURE[..., :1]).all()


def test_sixteen_bit_colour_keeps_the_high_byte(tmp_path):
    path = clip_writer.save(tmp_path / "wide.png", PICTURE.astype(np.uint16) * 256 + 9)
    assert (images.read_image(path) == PICTURE).all()


def test_cmyk_becomes_rgb(tmp_path):
    path = tmp_path / "cmyk.jpg"
    Image.fromarray(PICTURE).convert("CMYK").save(path, quality=95)
    assert np.abs(images.read_image(path).astype(int) - PICTURE).mean() < 8


def test_exif_orientation_turns_pixels_and_size(tmp_path):
    path = tmp_path / "turned.png"
    exif = Image.Exif()
    exif[images.EXIF_ORIENTATION] = 6  # shown turned by 90 degrees clockwise
    Image.fromarray(PICTURE).save(path, exif=exif)
    assert images.inspect(path).size == (40, 24)
    assert (images.read_image(path) == np.rot90(PICTURE, -1)).all()


def test_palette_images_give_their_colours(tmp_path):
    path = tmp_path / "palette.png"
    two = Image.fromarray((PICTURE[..., 0] > 128).astype(np.uint8), mode=None)
    two = two.convert("P")
    two.putpalette([10, 20, 30, 200, 100, 50])
    two.save(path)
    colours = np.array([[10, 20, 30], [200, 100, 50]])
    expected = colours[(PICTURE[..., 0] > 128).astype(int)]
    assert (images.read_image(path) == expected).all()


def break_file(path: Path, how: str) -> None:
    data = path.read_bytes()
    broken = {
        "empty": b"",
        "truncated": data[: len(data) * 2 // 3],
        "text": b"this is no picture" * 50,
    }
    path.write_bytes(broken[how])


@pytest.mark.parametrize("suffix", [".jpg", ".png", ".bmp", ".ppm"])
@pytest.mark.parametrize(
    ("how", "word"),
    [("empty", "0 bytes"), ("truncated", "truncated"), ("text", "not an image")],
)
def test_broken_files_are_named_without_decoding_the_sound_ones(
    tmp_path, suffix, how, word
):
    path = clip_writer.save(tmp_path / f"a{suffix}", clip_writer.texture((90, 120)))
    break_file(path, how)
    assert word in images.inspect(path).problem
    with pytest.raises(errors.UserError, match=word) as told:
        images.read_image(path)
    assert str(path) in told.value.found


def test_damage_inside_a_png_is_found_by_decoding(tmp_path):
    path = clip_writer.save(tmp_path / "a.png", clip_writer.texture((90, 120)))
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 0xFF
    path.write_bytes(bytes(data))
    assert images.inspect(path).problem == ""
    assert "damaged" in images.inspect(path, decode=True).problem


def test_a_picture_too_large_to_decode_is_refused_by_its_header(tmp_path):
    path = tmp_path / "bomb.png"
    path.write_bytes(clip_writer.claiming_png((60_000, 60_000)))
    assert "3600 million pixels" in images.inspect(path).problem
    with pytest.raises(errors.UserError, match="3600 million pixels") as told:
        images.read_image(path)
    assert str(path) in told.value.found


@pytest.mark.parametrize(
    ("mode", "suspected"), [("RGB", True), ("L", True), ("CMYK", False)]
)
def test_damage_that_a_jpeg_decoder_conceals_is_suspected(tmp_path, mode, suspected):
    path = tmp_path / "a.jpg"
    image = Image.fromarray(clip_writer.texture((480, 640))).convert(mode)
    image.save(path, quality=90)
    assert not images.conceals_damage(path)
    clip_writer.damage_inside(path)
    assert images.inspect(path, decode=True).problem == ""
    assert images.conceals_damage(path) == suspected


def test_what_is_no_file_is_opened_by_nobody(tmp_path):
    os.mkfifo(tmp_path / "pipe.png")
    (tmp_path / "folder.png").mkdir()
    for name in ("pipe.png", "folder.png", "/dev/zero"):
        with pytest.raises(OSError, match="is no file"):
            images.opened(tmp_path / name)


def test_a_missing_file_is_called_missing(tmp_path):
    assert images.inspect(tmp_path / "gone.png").problem == "is missing"


def test_hidden_files_and_other_types_are_no_frames():
    assert not images.is_image(Path("._00001.jpg"))
    assert not images.is_image(Path("notes.txt"))
    assert images.is_image(Path("IMG_0001.JPEG"))


def test_a_mask_at_another_size_has_neither_staircases_nor_holes():
    mask = np.tri(24, 32, dtype=bool)
    large = images.resize_mask(mask, (96, 128))
    blocks = large.reshape(24, 4, 32, 4)
    assert (blocks.any(axis=(1, 3)) != blocks.all(axis=(1, 3))).any()
    np.testing.assert_array_equal(
        images.resize_mask(np.kron(mask, np.ones((2, 2))) > 0, (24, 32)), mask
    )
    assert images.resize_mask(mask, mask.shape) is mask
