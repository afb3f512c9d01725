"""`import imas_jax`: what its calls take, and refuse; nothing is trained here."""

import gc
import logging
import re
import shutil
import tempfile
from pathlib import Path

import numpy as np
import pytest
import tiny
from absl import logging as absl_logging

import imas_jax
from imas_jax import api
from imas_jax.data import images
from imas_jax.progress import progress
from imas_jax.runs import recipes
from imas_jax.training import compiled


def test_the_programs_own_logging_is_left_as_it_was(caplog):
    ours, heard = logging.getLogger("absl"), []
    before = (ours.level, ours.propagate, list(ours.handlers))
    with api.hosted.heard(heard.append):
        absl_logging.info("to the logger")
        assert list(progress(range(2), 2, "it", "one")) == [0, 1]
    assert (ours.level, ours.propagate, list(ours.handlers)) == before
    assert heard == [imas_jax.Progress("it", n, 2, "one") for n in (1, 2)]
    assert caplog.messages == []  # nobody asked for the logger's lines
    caplog.set_level(logging.INFO)
    with api.hosted.heard(None):
        logging.getLogger("absl").info("a library's own")
        absl_logging.warning("to the logger")
    assert [record.name for record in caplog.records] == ["imas_jax"]


class Reached(Exception):
    """The run would begin here."""


@pytest.fixture
def begun(monkeypatch):
    """Stop where stages would work, with the config they would get."""
    configs = []

    def run(config):
        configs.append(config)
        raise Reached

    monkeypatch.setattr(api.stages, "run", run)
    monkeypatch.setattr(compiled, "forget", lambda: None)
    return configs


def arrays(count=3, size=(32, 48)):
    rng = np.random.default_rng(0)
    return [rng.integers(0, 255, (*size, 3), dtype=np.uint8) for _ in range(count)]


def test_arrays_are_stored_losslessly_and_found_again(begun, tmp_path):
    frames = arrays()
    for _ in range(2):  # the second call finds them
        with pytest.raises(Reached):
            imas_jax.segment(iter(frames), workdir=tmp_path)
    (config, _) = begun
    assert (config.data.layout, config.stage) == ("folder", "predict")
    stored = sorted(Path(config.data.root).iterdir())
    assert [path.name for path in stored] == [f"{t:05d}.png" for t in range(3)]
    for path, frame in zip(stored, frames, strict=True):
        np.testing.assert_array_equal(images.read_image(path), frame)
    others = [frames[0], frames[2], frames[1]]
    for wrong, said in ((others, "frame 1 is another"), (frames[:2], "2 frames, whe")):
        with pytest.raises(imas_jax.UserError, match=said):
            imas_jax.segment(wrong, workdir=tmp_path)


def test_an_iterator_that_fails_midway_leaves_what_it_gave(begun, tmp_path):
    def failing():
        yield from arrays()
        raise OSError("the camera is gone")

    with pytest.raises(OSError, match="gone"):
        imas_jax.segment(failing(), workdir=tmp_path)
    assert len(list((tmp_path / "input/clip").iterdir())) == 3
    with pytest.raises(OSError, match="gone") as without_workdir:
        imas_jax.segment(failing())
    (note,) = without_workdir.value.__notes__
    kept = Path(re.search(r"workdir='(.*)'", note)[1])
    with pytest.raises(Reached):
        imas_jax.segment(arrays(), workdir=kept)
    shutil.rmtree(kept)


def test_a_folder_that_nobody_named_lasts_as_long_as_what_needs_it():
    folder = api.hosted.Folder(None)
    masks = api.Masks(folder.path, (), folder)
    path = folder.path
    del folder
    gc.collect()
    assert path.is_dir()
    del masks
    gc.collect()
    assert not path.exists()


def test_a_refused_call_leaves_no_temporary_folder(monkeypatch, tmp_path):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    with pytest.raises(imas_jax.UserError):
        imas_jax.segment(arrays(1))
    gc.collect()
    assert list(tmp_path.iterdir()) == []


FRAME = arrays(1)[0]


@pytest.mark.parametrize(
    ("frames", "found", "fix"),
    [
        ([FRAME[..., 0]] * 3, r"uint8 of shape \(32, 48\)", "grey: np.repeat"),
        ([FRAME[..., :1]] * 3, r"shape \(32, 48, 1\)", "grey: np.repeat"),
        ([FRAME / np.float32(255)] * 3, "float32", r"\(255 \* frame\).round"),
        ([FRAME.astype(np.uint16)] * 3, "uint16", "frame // 256"),
        ([FRAME.transpose(2, 0, 1)] * 3, r"\(3, 32, 48\)", "frame.transpose"),
        ([np.dstack([FRAME, FRAME])[..., :4]] * 3, r"48, 4\)", r"frame\[..., :3\]"),
        (
            [FRAME, FRAME[:20]],
            r"frame 1 has .*\(20, 48\), frame 0 \(32, 48\)",
            "resize",
        ),
        ([FRAME[:8]] * 2, r"\(8, 48\)", "resize or pad"),
        (["a.png", "b.png"], "frame 0 is <U5", "give their folder"),
        (FRAME, r"one ndarray of shape \(32, 48, 3\)", "into a list"),
        (3, "one int", "into a list"),
        ([FRAME], "1 frame", "all frames"),
        ([], "0 frame", "all frames"),
    ],
)
@pytest.mark.usefixtures("unchecked")
def test_what_is_no_clip_is_refused_with_what_makes_it_one(frames, found, fix, begun):
    with pytest.raises(imas_jax.UserError) as error:
        imas_jax.segment(frames)
    assert re.search(found, error.value.found)
    assert re.search(fix, error.value.fix)
    assert begun == []


def test_an_array_of_frames_is_frames(begun, tmp_path):
    with pytest.raises(Reached):
        imas_jax.segment(np.stack(arrays()), workdir=tmp_path)


def test_paths_must_hold_one_clip(begun, tmp_path):
    with pytest.raises(imas_jax.UserError, match="does not exist"):
        imas_jax.segment(tmp_path / "none.mp4")
    for name in ("a", "b"):
        tiny.write_clip(tmp_path / "clips" / name, 2)
    with pytest.raises(imas_jax.UserError, match="holds 2 clips"):
        imas_jax.segment(tmp_path / "clips")
    with pytest.raises(Reached):
        imas_jax.segment(str(tmp_path / "clips/a"))
    assert begun[0].data.root == str(tmp_path / "clips/a")


def test_overrides_are_fields_by_dotted_name_or_nested(begun, tmp_path):
    tiny.write_clip(tmp_path / "clip", 2)
    overrides = {"discover.steps": 7, "refine": {"steps": 3}, "data.sequences": "clip"}
    config = recipes.load("video")
    with pytest.raises(Reached):
        imas_jax.segment(tmp_path / "clip", config=config, overrides=overrides)
    (made,) = begun
    assert (made.discover.steps, made.refine.steps) == (7, 3)
    assert made.data.sequences == ("clip",)
    assert config.discover.steps == -1  # the caller's own is left alone
    with pytest.raises(imas_jax.UserError, match=r"mean discover\.steps"):
        imas_jax.segment(tmp_path / "clip", overrides={"discover.step": 7})
    with pytest.raises(imas_jax.UserError, match="'seven'"):
        imas_jax.segment(tmp_path / "clip", overrides={"discover.steps": "seven"})
    with pytest.raises(imas_jax.UserError, match="no recipe"):
        imas_jax.segment(tmp_path / "clip", config="vidoe")
