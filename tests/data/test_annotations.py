import errno
import os
import shutil
from pathlib import Path

import clip_writer
import numpy as np
import pytest
from PIL import Image

from imas_jax import errors
from imas_jax.data import annotations, clips

SQUARE = np.zeros((64, 96), bool)
SQUARE[10:30, 20:50] = True


def load(root, layout, split=None, **data):
    """Return {clip: {frame index: mask}}."""
    config = clip_writer.config(root, layout, **data).data
    found = {}
    for clip in clips.find_clips(config, split):
        told = annotations.annotated_frames(config, clip)
        found[clip.name] = {
            index: annotations.read_annotation(where) for index, where in told.items()
        }
    return found


def davis_with(tmp_path, name: str, image: Image.Image):
    clip_writer.write_clip(tmp_path / "JPEGImages/480p/dog", 2, suffix=".jpg")
    folder = tmp_path / "Annotations/480p/dog"
    folder.mkdir(parents=True)
    image.save(folder / name)
    return load(tmp_path, "davis", "")["dog"]


def test_davis_masks_are_grey_above_127(tmp_path):
    grey = Image.fromarray(np.where(SQUARE, 255, 100).astype(np.uint8))
    masks = davis_with(tmp_path, "00001.png", grey)
    assert list(masks) == [1]
    assert (masks[1] == SQUARE).all()


def test_a_mask_with_alpha_is_read_by_its_grey(tmp_path):
    grey = Image.fromarray(np.where(SQUARE, 255, 0).astype(np.uint8))
    masks = davis_with(tmp_path, "00000.png", grey.convert("LA"))
    assert (masks[0] == SQUARE).all()


def test_objects_of_a_palette_image_are_merged(tmp_path):
    numbers = np.zeros((64, 96), np.uint8)
    numbers[10:30, 20:35], numbers[10:30, 35:50] = 1, 2
    image = Image.fromarray(numbers).convert("P")
    image.putpalette([0, 0, 0, 10, 0, 0, 0, 10, 0])  # dark colours: grey would miss
    assert (davis_with(tmp_path, "00000.png", image)[0] == SQUARE).all()


@pytest.mark.parametrize("last", [(224, 224, 192), (255, 255, 255)])
def test_void_is_what_the_palette_does_not_show_white(tmp_path, last):
    numbers = np.zeros((64, 96), np.uint8)
    numbers[10:30, 20:50], numbers[40:50, 20:50] = 1, 255
    image = Image.fromarray(numbers).convert("P")
    image.putpalette([0] * 765 + list(last))
    image.putdata(numbers.ravel().tolist())
    path = tmp_path / "00000.png"
    image.save(path)
    truth = annotations.read_truth(annotations.Annotation((path,)))
    if last == (255, 255, 255):
        assert truth.void is None
        assert (truth.foreground == (numbers > 0)).all()
    else:
        assert (truth.foreground == SQUARE).all()
        assert (truth.void == (numbers == 255)).all()


def test_an_annotation_without_frame_is_not_scored(tmp_path):
    grey = Image.fromarray(np.where(SQUARE, 255, 0).astype(np.uint8))
    assert davis_with(tmp_path, "00007.png", grey) == {}


def test_a_truncated_annotation_is_named(tmp_path):
    clip_writer.write_clip(tmp_path / "JPEGImages/480p/dog", 2, suffix=".jpg")
    path = clip_writer.save(
        tmp_path / "Annotations/480p/dog/00000.png", clip_writer.texture((64, 96))
    )
    path.write_bytes(path.read_bytes()[:900])
    with pytest.raises(errors.UserError, match=r"00000\.png cannot be read"):
        load(tmp_path, "davis", "")


def test_own_clips_have_no_annotations(tmp_path):
    clip_writer.write_clip(tmp_path / "dog", 2)
    assert load(tmp_path, "folders") == {"dog": {}}


def test_deleting_the_annotation_folder_leaves_clips_readable(tmp_path):
    clip_writer.write_clip(tmp_path / "JPEGImages/480p/dog", 2, suffix=".jpg")
    assert load(tmp_path, "davis", "") == {"dog": {}}


def test_segtrackv2_objects_are_united(shared):
    masks = load(shared / "data/formats/SegTrackv2", "segtrackv2", partial=True)
    assert {name: list(found) for name, found in masks.items()} == {
        "made_hike": [0, 1],
        "made_motorbike": list(range(10)),
        "made_swing": [0, 1, 2],
    }
    folder = shared / "data/formats/SegTrackv2/GroundTruth/made_motorbike"
    parts = [
        np.asarray(Image.open(folder / n / "made_motorbike_00003.png").convert("L"))
        for n in ("1", "2")
    ]
    united = (parts[0] > 127) | (parts[1] > 127)
    assert (parts[0] > 127).sum() < united.sum()
    assert (masks["made_motorbike"][2] == united).all()


def test_fbms59_annotations_are_matched_by_number(shared):
    masks = load(shared / "data/formats/FBMS59", "fbms59", "trainval", partial=True)
    assert {name: list(found) for name, found in masks.items()} == {
        "bear01": [0, 19],
        "made01": [0, 5, 11],
        "made02": [0, 10],
        "made03": [0, 11],
    }


def test_fbms59_colour_annotations_take_everything_but_white(shared):
    root = shared / "data/formats/FBMS59"
    made03 = load(root, "fbms59", "val", partial=True)["made03"][0]
    folder = root / "Testset/made03/GroundTruth"
    colour = np.asarray(Image.open(folder / "made03_0001_gt.ppm"))
    assert (made03 == (colour < 255).any(-1)).all()
    blue = (colour == (0, 0, 255)).all(-1)
    assert blue.any()
    assert made03[blue].all()  # grey 0.114: just above the threshold


def test_fbms59_grey_annotations_unite_two_objects(shared):
    root = shared / "data/formats/FBMS59"
    made02 = load(root, "fbms59", "val", partial=True)["made02"][0]
    grey = np.asarray(Image.open(root / "Testset/made02/GroundTruth/001_gt.pgm"))
    assert set(np.unique(grey)) == {0, 85, 170}
    assert (made02 == (grey > 0)).all()


def annotated_davis(tmp_path, names=("dog", "cat"), count: int = 3):
    for name in names:
        paths = clip_writer.write_clip(tmp_path / "JPEGImages/480p" / name, count)
        for path in paths:
            mask = np.where(SQUARE, 255, 0).astype(np.uint8)
            clip_writer.save(tmp_path / "Annotations/480p" / name / path.name, mask)
    data = clip_writer.config(tmp_path, "davis").data
    return data, clips.find_clips(data, "")


def test_sound_annotations_and_no_annotations_at_all_pass_the_check(tmp_path):
    data, found = annotated_davis(tmp_path)
    annotations.check(data, found)
    shutil.rmtree(tmp_path / "Annotations")
    annotations.check(data, found)


def test_unreadable_and_misshapen_annotations_are_listed_at_once(tmp_path):
    data, found = annotated_davis(tmp_path, ("a", "b", "c"))
    folder = tmp_path / "Annotations/480p"
    (folder / "a/00002.png").write_bytes(b"")
    clip_writer.save(folder / "b/00000.png", np.zeros((30, 40), np.uint8))
    with pytest.raises(errors.UserError) as told:
        annotations.check(data, found)
    for words in (
        "2 problem(s)",
        f"annotation {folder / 'a/00002.png'} cannot be read",
        f"{folder / 'b/00000.png'}: is (30, 40) (h, w)",
    ):
        assert words in str(told.value)


def test_annotations_without_frame_and_frames_without_annotation_are_told(
    tmp_path, caplog
):
    data, found = annotated_davis(tmp_path, ("a", "b", "c"))
    folder = tmp_path / "Annotations/480p"
    (folder / "a/00001.png").unlink()
    shutil.copy(folder / "b/00001.png", folder / "b/00009.png")
    shutil.rmtree(folder / "c")
    with caplog.at_level("WARNING"):
        annotations.check(data, found)
    assert caplog.messages == [
        "a: not scored, 1 frame(s) without annotation: 00001",
        "b: not scored, 1 annotation(s) without frame: 00009.png",
        "c: not scored, 3 frame(s) without annotation: 00000, 00001, 00002",
    ]
    assert [len(annotations.annotated_frames(data, clip)) for clip in found] == [
        2,
        3,
        0,
    ]


def test_an_annotation_that_is_no_file_is_named_and_not_waited_for(tmp_path):
    data, found = annotated_davis(tmp_path, ("a", "b"))
    folder = tmp_path / "Annotations/480p"
    for path in (folder / "a/00001.png", folder / "b/00000.png"):
        path.unlink()
    os.mkfifo(folder / "a/00001.png")
    (folder / "b/00000.png").mkdir()
    with pytest.raises(errors.UserError, match=r"2 problem\(s\)") as told:
        annotations.check(data, found)
    assert str(told.value).count("is no file") == 2


def test_annotations_that_nobody_may_read_are_named(tmp_path, monkeypatch):
    data, found = annotated_davis(tmp_path, ("a", "b"))
    folder, listed = tmp_path / "Annotations/480p/a", Path.iterdir

    def iterdir(self):
        if self == folder:
            raise PermissionError(errno.EACCES, "Permission denied", str(self))
        return listed(self)

    monkeypatch.setattr(Path, "iterdir", iterdir)
    with pytest.raises(errors.UserError, match=f"{folder} cannot be read"):
        annotations.check(data, found)


def test_published_trees_pass_the_check(shared):
    for name, layout in (("SegTrackv2", "segtrackv2"), ("FBMS59", "fbms59")):
        config = clip_writer.config(shared / "data/formats" / name, layout)
        config.data.partial = True
        found = clips.find_clips(config.data, "trainval")
        config.data.partial = False
        annotations.check(config.data, found)
