import colorsys
import io

import cv2
import numpy as np
import pytest
from PIL import Image

from imas_jax.report import drawing

RNG = np.random.default_rng(0)


def picture(h: int = 40, w: int = 60) -> np.ndarray:
    return RNG.integers(0, 256, (h, w, 3), dtype=np.uint8)


def square(h: int = 40, w: int = 60) -> np.ndarray:
    mask = np.zeros((h, w), bool)
    mask[10:30, 15:40] = True
    return mask


def test_an_overlay_changes_the_object_and_nothing_far_from_it():
    image, mask = picture(), square()
    before = image.copy()
    shown = drawing.overlay(image, mask)
    near = cv2.dilate(mask.astype(np.uint8), np.ones((5, 5))) > 0
    np.testing.assert_array_equal(shown[~near], image[~near])
    assert (shown[mask] != image[mask]).any(axis=-1).mean() > 0.95
    np.testing.assert_array_equal(image, before)


def test_an_overlay_outlines_the_annotation_in_yellow():
    truth = np.roll(square(), 12, axis=1)
    shown = drawing.overlay(picture(), square(), truth)
    yellow = (shown == np.array(drawing.TRUTH)).all(-1)
    assert yellow[20, 51]
    without = drawing.overlay(picture(), square())
    assert not (without == np.array(drawing.TRUTH)).all(-1).any()


def test_a_certain_channel_has_its_own_colour():
    masks = np.eye(4, dtype=np.float32)[None]
    colours = drawing.mask_channels(masks)[0]
    np.testing.assert_array_equal(colours, drawing.CHANNELS[:4].astype(np.uint8))
    assert len(np.unique(colours, axis=0)) == 4


def test_more_channels_than_colours_still_draw():
    masks = np.full((3, 4, 11), 1 / 11, np.float32)
    assert drawing.mask_channels(masks).shape == (3, 4, 3)


@pytest.mark.parametrize(
    ("direction", "hue"), [((1, 0), 0), ((0, 1), 54), ((-1, 0), 180), ((0, -1), 275)]
)
def test_hue_is_the_direction_of_flow(direction, hue):
    flow = np.full((1, 1, 2), direction, np.float32)
    red, green, blue = drawing.flow_to_color(flow, 1.0)[0, 0] / 255
    found, saturation, _ = colorsys.rgb_to_hsv(red, green, blue)
    assert abs((found * 360 - hue + 180) % 360 - 180) < 25
    assert saturation > 0.9


def test_flow_colours_are_those_of_the_middlebury_code():
    # Values of the published colour code for u, v of speed 1.
    flow = np.array([[[1, 0], [0.5, 0], [0, 0], [2, 0]]], np.float32)
    shown = drawing.flow_to_color(flow, 1.0)[0].tolist()
    assert shown == [[255, 0, 0], [255, 127, 127], [255, 255, 255], [191, 0, 0]]


def test_the_same_scale_gives_the_same_colour_in_two_pictures():
    slow, fast = np.zeros((2, 2, 2), np.float32), np.zeros((2, 2, 2), np.float32)
    slow[..., 0], fast[..., 0] = 1, 1
    fast[0, 0] = 4
    a, b = drawing.flow_to_color(slow, 5.0), drawing.flow_to_color(fast, 5.0)
    np.testing.assert_array_equal(a[1, 1], b[1, 1])
    assert (
        drawing.flow_to_color(slow)[1, 1] != drawing.flow_to_color(fast)[1, 1]
    ).any()


def test_unknown_flow_is_black_and_does_not_spoil_the_rest():
    flow = np.ones((2, 2, 2), np.float32)
    flow[0, 0], flow[1, 1] = np.nan, np.inf
    shown = drawing.flow_to_color(flow)
    assert shown[0, 0].tolist() == shown[1, 1].tolist() == [0, 0, 0]
    assert shown[0, 1].tolist() != [0, 0, 0]


def test_no_motion_at_all_is_white():
    assert (drawing.flow_to_color(np.zeros((4, 4, 2), np.float32)) == 255).all()


def test_grey_runs_from_black_to_white():
    shown = drawing.grey(np.array([[0.0, 0.5, 1.0, np.nan]]))
    assert shown[0, :, 0].tolist() == [0, 128, 255, 0]


def test_bars_are_as_high_as_their_values():
    shown = drawing.bars(np.array([0.0, 0.5, 1.0, np.nan, 7.0]), (9, 8, 7), pixels=10)
    assert shown.shape == (10, 5, 4)
    assert (shown[..., 3] > 0).sum(axis=0).tolist() == [1, 5, 10, 0, 10]
    assert (shown[-1, :, 3] > 0).tolist() == [True, True, True, False, True]
    with Image.open(io.BytesIO(drawing.encode_png(shown))) as image:
        np.testing.assert_array_equal(np.asarray(image), shown)


def test_a_contact_sheet_holds_every_picture():
    pictures = [picture() for _ in range(5)]
    sheet = drawing.contact_sheet(pictures, columns=3, gap=2)
    assert sheet.shape == (40 * 2 + 2, 60 * 3 + 4, 3)
    np.testing.assert_array_equal(sheet[42:82, 62:122], pictures[4])
    assert (sheet[42:, 124:] == 255).all()


def test_a_label_is_added_above():
    shown = drawing.label(picture(), "stage 2")
    assert shown.shape[0] > 40
    assert (shown[:-40] < 128).any()


def test_width_is_kept_to_and_aspect_too():
    assert drawing.fit_width(picture(40, 60), 30).shape == (20, 30, 3)
    assert drawing.fit_width(picture(40, 60), 120).shape == (80, 120, 3)


def test_a_mask_file_is_an_indexed_png_in_the_colours_of_davis(tmp_path):
    path = tmp_path / "masks/bear/00000.png"
    drawing.write_mask(path, square())
    with Image.open(path) as image:
        assert image.mode == "P"
        np.testing.assert_array_equal(np.asarray(image) == 1, square())
        assert image.getpalette()[3:6] == [128, 0, 0]
    assert [p.name for p in path.parent.iterdir()] == ["00000.png"]


def test_the_palette_is_the_pascal_one():
    palette = drawing.davis_palette()
    assert palette[[0, 1, 2, 3, 8, 255]].tolist() == [
        [0, 0, 0],
        [128, 0, 0],
        [0, 128, 0],
        [128, 128, 0],
        [64, 0, 0],
        [224, 224, 192],
    ]
    assert len(np.unique(palette, axis=0)) == 256


def test_pictures_survive_their_files(tmp_path):
    image = picture()
    drawing.write_image(tmp_path / "a.png", image)
    with Image.open(tmp_path / "a.png") as file:
        np.testing.assert_array_equal(np.asarray(file), image)
    smooth = cv2.GaussianBlur(image, (0, 0), 8)
    decoded = cv2.imdecode(np.frombuffer(drawing.encode_jpeg(smooth), np.uint8), 1)
    assert np.abs(decoded[..., ::-1].astype(int) - smooth).mean() < 3
