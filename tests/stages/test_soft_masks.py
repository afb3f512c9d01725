"""Soft masks on disk, and that memory does not grow with a clip's length."""

import dataclasses
import itertools
import shutil
import tracemalloc

import clip_writer
import cv2
import numpy as np
import pytest

from imas_jax import files
from imas_jax.data import clips
from imas_jax.errors import UserError
from imas_jax.report import drawing
from imas_jax.runs.run import Run
from imas_jax.stages import evaluate, object_masks, predict, soft_masks

SIZE = (64, 96)


class Half:
    """A network whose object is the right half of every frame."""

    def __call__(self, clips):
        right = np.zeros((16, 24), np.float32)
        right[:, 12:] = 0.9
        for _ in itertools.chain.from_iterable(clips):
            yield np.stack([1 - right, right], axis=-1)


class Diagonal:
    """A network whose object is what lies below a slanted line."""

    def __call__(self, clips):
        y, x = np.mgrid[0:16, 0:24]
        below = 1 / (1 + np.exp(np.float32(1.2) * (x * 0.6 - y + 0.2)))
        for _ in itertools.chain.from_iterable(clips):
            yield np.stack([1 - below, below], axis=-1).astype(np.float32)


def long_video(path, count) -> clips.Clip:
    codec = cv2.VideoWriter.fourcc(*"MJPG")
    writer = cv2.VideoWriter(str(path), codec, 25, SIZE[::-1])
    frames = clip_writer.moving_frames(6, SIZE)
    for t in range(count):
        writer.write(frames[t % 6])
    writer.release()
    return clips.find_clips(clip_writer.config(path, "video").data)[0]


def run_of(folder) -> Run:
    config = clip_writer.config("unused")
    config.workdir = str(folder)
    return Run(config.lock(), ())


def peak(work) -> int:
    """Return the bytes that Python and NumPy held at most, beyond those before."""
    tracemalloc.start()
    try:
        work()
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


def test_memory_does_not_grow_with_a_videos_length(tmp_path):
    count = 1200
    clip = long_video(tmp_path / "long.avi", count)

    def work():
        soft_masks.write_all(tmp_path / "soft", (clip,), soft_masks.predicted(Half()))
        soft = soft_masks.read(tmp_path / "soft", clip)
        found = object_masks.binary_masks(run_of(tmp_path), clip, soft, (1,), "")
        assert sum(int(mask[:, 60:].all()) for mask in found) == count

    frames = count * SIZE[0] * SIZE[1] * 3
    assert peak(work) < 2_000_000 < frames / 10


def test_soft_masks_are_read_back_one_by_one(tmp_path):
    clip = long_video(tmp_path / "clip.avi", 5)
    soft_masks.write_all(tmp_path, (clip,), soft_masks.predicted(Half()))
    whole = np.load(tmp_path / "clip.npy")
    assert (whole.shape, whole.dtype) == ((5, 16, 24, 2), np.float16)
    found = soft_masks.read(tmp_path, clip)
    assert found.shape == whole.shape
    assert len(found) == 5
    for t, soft in enumerate(found):
        np.testing.assert_array_equal(soft, whole[t])
    with pytest.raises(IndexError):
        found[5]
    assert sorted(p.name for p in tmp_path.iterdir()) == ["clip.avi", "clip.npy"]


def test_soft_masks_that_are_cut_short_or_another_clips_are_refused(tmp_path):
    clip = long_video(tmp_path / "clip.avi", 5)
    soft_masks.write_all(tmp_path, (clip,), soft_masks.predicted(Half()))
    file = soft_masks.path(tmp_path, clip)
    file.write_bytes(file.read_bytes()[:-10])
    with pytest.raises(UserError, match="no usable soft masks"):
        soft_masks.read(tmp_path, clip)
    np.save(file, np.zeros((4, 16, 24, 2), np.float16))
    with pytest.raises(UserError, match="masks of 4 frames"):
        soft_masks.read(tmp_path, clip)


def test_a_disk_too_small_is_told_at_the_first_frame(tmp_path, monkeypatch):
    clip = long_video(tmp_path / "clip.avi", 5)
    usage = shutil.disk_usage("/")._replace(free=1000)
    monkeypatch.setattr(files.shutil, "disk_usage", lambda path: usage)
    with pytest.raises(UserError, match="MB for the soft masks of clip"):
        soft_masks.write_all(tmp_path, (clip,), soft_masks.predicted(Half()))
    assert not soft_masks.path(tmp_path, clip).exists()


def with_crf(run: Run, crf: str) -> Run:
    config = run.config.copy_and_resolve_references().unlock()
    config.predict.crf, config.target.workers = crf, 1
    return Run(config.lock(), ())


@pytest.mark.parametrize("crf", ["", "weak_unary"])
def test_masks_of_shrunken_frames_are_drawn_at_the_files_own_size(tmp_path, crf):
    clip, run = long_video(tmp_path / "clip.avi", 2), run_of(tmp_path)
    clip = dataclasses.replace(clip, size=(16, 24))  # as data.size makes it
    soft_masks.write_all(tmp_path / "soft", (clip,), soft_masks.predicted(Diagonal()))
    list(predict._write_pngs(with_crf(run, crf), tmp_path, clip, (1,)))
    mask = soft_masks.read_png(tmp_path / "masks/clip/00001.png")
    assert mask.shape == SIZE
    blocks = mask.reshape(16, 4, 24, 4)
    staircase = blocks.any(axis=(1, 3)) == blocks.all(axis=(1, 3))
    assert not staircase.all()


def test_written_masks_are_scored_as_they_were_written(tmp_path):
    clip = long_video(tmp_path / "clip.avi", 2)
    clip, stripes = dataclasses.replace(clip, size=(16, 24)), np.zeros(SIZE, bool)
    stripes[::2] = True
    for frame in clip.frames:
        path = tmp_path / "predict/masks/clip" / f"{frame.name}.png"
        drawing.write_mask(path, stripes)
    read = evaluate._written(run_of(tmp_path))(evaluate.Scored(clip, {}))
    for mask in read:
        np.testing.assert_array_equal(mask, stripes)


@pytest.mark.parametrize("crf", ["", "weak_unary"])
def test_pictures_that_are_there_are_not_made_again(tmp_path, crf):
    clip, run = long_video(tmp_path / "clip.avi", 6), run_of(tmp_path)
    run = with_crf(run, crf)
    soft_masks.write_all(tmp_path / "soft", (clip,), soft_masks.predicted(Half()))

    def write() -> dict[str, bytes]:
        assert len(list(predict._write_pngs(run, tmp_path, clip, (1,)))) == 6
        folder = tmp_path / "masks/clip"
        return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}

    def written_at(t: int) -> int:
        return (tmp_path / f"masks/clip/{t:05d}.png").stat().st_mtime_ns

    whole, before = write(), {t: written_at(t) for t in (1, 4)}
    for t in (3, 4, 5):  # as a run killed after its third frame leaves them
        (tmp_path / f"masks/clip/{t:05d}.png").unlink()
    assert write() == whole
    assert written_at(1) == before[1]
    assert written_at(4) > before[4]
    assert write() == whole
