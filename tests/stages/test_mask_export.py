"""Formats of masks, from what stage predict left on disk."""

import json

import clip_writer
import cv2
import numpy as np
import pytest

from imas_jax.data import clips
from imas_jax.report import drawing
from imas_jax.runs.run import Run
from imas_jax.stages import mask_export

NATIVE = (64, 96)


@pytest.fixture
def predicted(tmp_path):
    """A run that worked on frames of half their size, and predicted a clip."""
    clip_writer.write_clip(tmp_path / "clips/a clip", 4, ".jpg")
    config = clip_writer.config(tmp_path / "clips", size=(32, 48))
    config.workdir = str(tmp_path / "run")
    (clip,) = clips.find_clips(config.data)
    folder = tmp_path / "run/predict"
    soft = np.zeros((4, 16, 24, 3), np.float16)
    soft[..., 0], soft[:, :, 12:, 1], soft[:, :, 12:, 2] = 0.25, 0.5, 0.25
    (folder / "soft").mkdir(parents=True)
    np.save(folder / "soft/a clip.npy", soft)
    mask = np.zeros(NATIVE, bool)
    mask[20:40, 30:60] = True
    for frame in clip.frames:
        drawing.write_mask(folder / "masks/a clip" / f"{frame.name}.png", mask)
    (tmp_path / "run/align").mkdir()
    told = {"identity": "", "outputs": {"channels": [1, 2]}}
    (tmp_path / "run/align/result.json").write_text(json.dumps(told))
    return Run(config.lock(), ()), clip, folder


def test_frames_and_masks_have_the_files_own_size(predicted):
    run, clip, folder = predicted
    names = ("png", "overlay", "soft16", "colmap")
    told = mask_export.export_all(run, folder, (clip,), names)
    assert told == {name: str(folder / name) for name in names[1:]}
    capture = cv2.VideoCapture(str(folder / "overlay/a clip.mp4"))
    assert capture.read()[1].shape == (*NATIVE, 3)
    soft = cv2.imread(str(folder / "soft16/a clip/00001.png"), cv2.IMREAD_UNCHANGED)
    assert soft.shape == NATIVE
    # The object is two channels; nothing is cut.
    assert soft[5, 90] == pytest.approx(0.75 * 65535, abs=1)
    assert soft[5, 5] == 0
    assert 0 < soft[5, 46] < 0.75 * 65535  # between the masks' pixels
    assert (folder / "colmap/a clip/00000.jpg.png").is_file()


def test_only_what_is_missing_is_written(predicted):
    run, clip, folder = predicted
    mask_export.export_all(run, folder, (clip,), ["coco"])
    file = folder / "coco/a clip.json"
    before = file.stat().st_mtime_ns
    mask_export.export_all(run, folder, (clip,), ["coco", "cvat"])
    assert file.stat().st_mtime_ns == before
    assert (folder / "cvat/a clip.zip").is_file()


def test_a_folder_that_a_kill_left_half_is_made_again(predicted, monkeypatch):
    run, clip, folder = predicted
    steps = mask_export.export(run, clip, {"yolo": folder / "yolo/a clip"})
    next(steps)
    next(steps)
    assert not (folder / "yolo/a clip").exists()  # as a kill here would leave it
    steps.close()
    mask_export.export_all(run, folder, (clip,), ["yolo"])
    assert len(list((folder / "yolo/a clip/labels").iterdir())) == 4


def test_formats_that_need_no_frames_read_none(predicted, monkeypatch):
    run, clip, folder = predicted

    def read(self, index):
        raise AssertionError("a frame was decoded")

    monkeypatch.setattr(clips.Clip, "read", read)
    mask_export.export_all(run, folder, (clip,), ["coco", "cvat", "napari"])


def test_what_a_finished_stage_lacks_is_seen(predicted):
    run, clip, folder = predicted

    def wanting(*names):
        config = run.config.copy_and_resolve_references().unlock()
        config.predict.formats = names
        return Run(config.lock(), ())

    assert mask_export.is_there(wanting("png"), (clip,))
    assert not mask_export.is_there(wanting("png", "coco"), (clip,))
    mask_export.export_all(run, folder, (clip,), ["coco"])
    assert mask_export.is_there(wanting("coco"), (clip,))
