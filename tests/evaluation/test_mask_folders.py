import os
from pathlib import Path

import clip_writer
import numpy as np
import pytest
from PIL import Image

from imas_jax import errors
from imas_jax.evaluation import mask_folders
from imas_jax.report import drawing

SIZE = (12, 20)


def square(size=SIZE) -> np.ndarray:
    mask = np.zeros(size, bool)
    mask[3:9, 4:12] = True
    return mask


def save(path: Path, values: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(values).save(path)


def grey(path: Path, mask: np.ndarray = None, level: int = 255) -> None:
    mask = square() if mask is None else mask
    save(path, (mask * level).astype(np.uint8))


@pytest.mark.parametrize("level", [255, 1])
def test_full_white_and_label_one_are_both_objects(tmp_path, level):
    grey(tmp_path / "bear/00000.png", level=level)
    masks = mask_folders.open_masks(tmp_path)
    assert masks.encoding == ("binary" if level == 255 else "labels")
    np.testing.assert_array_equal(masks.read("bear", "00000", SIZE), square())


def test_our_own_palette_files_are_read_back(tmp_path):
    drawing.write_mask(tmp_path / "bear/00000.png", square())
    masks = mask_folders.open_masks(tmp_path)
    assert masks.encoding == "labels"
    np.testing.assert_array_equal(masks.read("bear", "00000", SIZE), square())


def test_objects_are_united_or_one_is_picked_by_its_label(tmp_path):
    labels = square().astype(np.uint8)
    labels[0, 0] = 2
    save(tmp_path / "bear/00000.png", labels)
    united = mask_folders.open_masks(tmp_path).read("bear", "00000", SIZE)
    assert united.sum() == square().sum() + 1
    second = mask_folders.open_masks(tmp_path, label=2).read("bear", "00000", SIZE)
    assert np.argwhere(second).tolist() == [[0, 0]]
    with pytest.raises(errors.UserError, match=r"labels there: \[0, 1, 2\]"):
        mask_folders.open_masks(tmp_path, label=3)


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_soft_masks_are_cut_at_the_threshold(tmp_path, dtype):
    ramp = np.tile(np.linspace(0, np.iinfo(dtype).max, 20), (12, 1)).astype(dtype)
    save(tmp_path / "bear/00000.png", ramp)
    masks = mask_folders.open_masks(tmp_path, threshold=0.35)
    assert masks.encoding == "soft"
    expected = np.linspace(0, 1, 20) > 0.35
    np.testing.assert_array_equal(masks.read("bear", "00000", SIZE)[5], expected)


def test_a_soft_mask_that_found_nothing_does_not_pass_for_labels(tmp_path):
    save(tmp_path / "bear/00000.png", np.full(SIZE, 7, np.uint8) * square())
    save(tmp_path / "bear/00001.png", (square() * 140).astype(np.uint8))
    masks = mask_folders.open_masks(tmp_path)
    assert masks.encoding == "soft"
    assert not masks.read("bear", "00000", SIZE).any()
    assert masks.read("bear", "00001", SIZE).any()


def test_palette_and_soft_files_in_one_folder_are_refused(tmp_path):
    drawing.write_mask(tmp_path / "bear/00000.png", square())
    grey(tmp_path / "bear/00001.png", level=140)
    with pytest.raises(errors.UserError, match=r"evaluate\.encoding"):
        mask_folders.open_masks(tmp_path)


def test_a_file_that_contradicts_the_others_is_named(tmp_path):
    for number in range(20):
        grey(tmp_path / f"bear/{number:05d}.png")
    grey(tmp_path / "bear/00003.png", level=140)
    masks = mask_folders.open_masks(tmp_path)
    assert masks.encoding == "binary"
    with pytest.raises(errors.UserError, match=r"00003\.png"):
        masks.read("bear", "00003", SIZE)


def test_labels_are_resized_by_nearest_and_soft_masks_before_the_threshold(tmp_path):
    grey(tmp_path / "a/bear/0.png")
    double = (24, 40)
    found = mask_folders.open_masks(tmp_path / "a").read("bear", "0", double)
    np.testing.assert_array_equal(found, np.kron(square(), np.ones((2, 2))) > 0)
    save(tmp_path / "b/bear/0.png", np.array([[0, 200]], np.uint8).repeat(2, 0))
    soft = mask_folders.open_masks(tmp_path / "b", threshold=0.5)
    # Between 0 and 200/255 at 1/8, 3/8, 5/8, 7/8 of the way: only 7/8 is above 0.5.
    row = soft.read("bear", "0", (2, 8))[0]
    assert row.tolist() == [False] * 5 + [True] * 3


def test_the_authors_flat_names_are_understood(tmp_path):
    for step, level in ((100, 0), (40000, 255)):
        for frame in ("00000", "00001"):
            grey(tmp_path / f"pred_seg_car_turn-2_{frame}_{step}.png", level=level)
    masks = mask_folders.open_masks(tmp_path)
    assert list(masks.files) == ["car_turn-2"]
    # The last step counts.
    np.testing.assert_array_equal(masks.read("car_turn-2", "00001", SIZE), square())


def test_frames_are_found_by_name_and_then_by_number(tmp_path):
    grey(tmp_path / "bear/00007.png")
    grey(tmp_path / "bear/8.png", np.zeros(SIZE, bool))
    masks = mask_folders.open_masks(tmp_path)
    assert masks.find("bear", "7") == tmp_path / "bear/00007.png"
    assert masks.find("bear", "bear01_0008") == tmp_path / "bear/8.png"
    assert masks.find("bear", "00009") is None
    assert masks.find("dog", "00007") is None


def test_everything_that_is_missing_is_told(tmp_path):
    grey(tmp_path / "bear/00000.png")
    grey(tmp_path / "stranger/00000.png")
    masks = mask_folders.open_masks(tmp_path)
    expected = {"bear": ["00000", "00001"], "dog": ["00000"], "stranger": ["00000"]}
    missing = {"bear": ["00001"], "dog": ["00000"]}
    assert masks.missing(expected) == missing


@pytest.mark.parametrize("name", ["nothing", "empty"])
def test_a_folder_without_masks_is_refused(tmp_path, name):
    (tmp_path / "empty").mkdir()
    with pytest.raises(errors.UserError, match="pred_seg_"):
        mask_folders.open_masks(tmp_path / name)


def test_an_unreadable_file_is_named(tmp_path):
    grey(tmp_path / "bear/00000.png")
    broken = tmp_path / "bear/00001.png"
    broken.write_bytes((tmp_path / "bear/00000.png").read_bytes()[:40])
    with pytest.raises(errors.UserError, match=r"00001\.png cannot be read"):
        mask_folders.open_masks(tmp_path)


def test_a_missing_mask_is_named_when_it_is_read(tmp_path):
    grey(tmp_path / "bear/00000.png")
    masks = mask_folders.open_masks(tmp_path)
    with pytest.raises(errors.UserError, match="frame 00004"):
        masks.read("bear", "00004", SIZE)


def test_masks_that_are_no_files_are_named_and_not_waited_for(tmp_path):
    (tmp_path / "bear").mkdir()
    os.mkfifo(tmp_path / "bear/00000.png")
    with pytest.raises(errors.UserError, match="is no file"):
        mask_folders.read_values(tmp_path / "bear/00000.png")
    with pytest.raises(errors.UserError, match="is no file"):
        mask_folders.open_masks(tmp_path)


def test_a_mask_too_large_to_decode_is_named(tmp_path):
    path = tmp_path / "00000.png"
    path.write_bytes(clip_writer.claiming_png((60_000, 60_000)))
    with pytest.raises(errors.UserError, match="cannot be read"):
        mask_folders.read_values(path)
