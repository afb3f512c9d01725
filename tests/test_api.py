"""`import imas_jax`: one tiny run, interrupted and continued, and all that reads it.

It has no stage 2, which takes as long to compile; tests/stages/test_stages.py loads the
network of one that has.
"""

import contextlib
import itertools
import json
import logging
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import tracemalloc
from pathlib import Path

import av
import hub_server
import jax
import numpy as np
import pytest
import tiny
from PIL import Image

import imas_jax
from imas_jax import api, protocol
from imas_jax.data import images
from imas_jax.runs import recipes

ROOT = Path(__file__).parents[1]
FRAMES = 8


@contextlib.contextmanager
def silence():
    """Fail if anything comes to the two streams of the process, from wherever."""
    kept = os.dup(1), os.dup(2)
    with tempfile.TemporaryFile() as heard:
        os.dup2(heard.fileno(), 1)
        os.dup2(heard.fileno(), 2)
        try:
            yield
        finally:
            os.dup2(kept[0], 1)
            os.dup2(kept[1], 2)
            os.close(kept[0])
            os.close(kept[1])
        heard.seek(0)
        assert heard.read() == b""


def recipe():
    config = tiny.get_config()
    config.refine.steps = 0
    return config


def interrupt(at):
    """Press Ctrl-C when stage 1 has done two steps."""
    if (at.what, at.done) == ("discover", 2):
        os.kill(os.getpid(), signal.SIGINT)


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """Segment a clip whose run was interrupted; note what was heard meanwhile."""
    root = tmp_path_factory.mktemp("api")
    truth = tiny.write_clip(root / "clip", FRAMES)
    call = {"config": recipe(), "workdir": root / "run"}
    before = signal.getsignal(signal.SIGINT)
    with silence(), pytest.raises(imas_jax.Stopped, match="step 3 of 6, which is s"):
        imas_jax.segment(root / "clip", progress=interrupt, **call)
    assert signal.getsignal(signal.SIGINT) is before
    heard, words = [], Words()
    logging.getLogger("imas_jax").addHandler(words)
    logging.getLogger("imas_jax").setLevel(logging.INFO)
    try:
        with silence():
            result = imas_jax.segment(root / "clip", progress=heard.append, **call)
    finally:
        logging.getLogger("imas_jax").removeHandler(words)
        logging.getLogger("imas_jax").setLevel(logging.NOTSET)
    return root, result, truth, heard, words.lines


class Words(logging.Handler):
    def __init__(self):
        super().__init__()
        self.lines = []

    def emit(self, record):
        self.lines.append(record.getMessage())


def frames_of(root):
    return [images.read_image(path) for path in sorted((root / "clip").iterdir())]


def test_importing_is_quick_and_loads_no_jax():
    ask = (
        "import sys, time; start = time.perf_counter(); import imas_jax;"
        "print(time.perf_counter() - start, 'jax' in sys.modules);"
        "imas_jax.UserError, imas_jax.Progress; assert 'jax' not in sys.modules;"
        "assert {'segment', 'losses', 'Result'} <= {*dir(imas_jax)};"
        "imas_jax.losses.motion_loss, imas_jax.composition, imas_jax.segment"
    )
    done = subprocess.run(
        [sys.executable, "-c", ask], capture_output=True, text=True, cwd=ROOT
    )
    assert done.returncode == 0, done.stderr
    seconds, jax_is_loaded = done.stdout.split()
    assert float(seconds) < 0.3
    assert jax_is_loaded == "False"
    with pytest.raises(AttributeError, match="no attribute 'segmnt'"):
        imas_jax.segmnt  # noqa: B018


def test_an_interrupted_call_goes_on_where_it_was(finished):
    _, _, _, heard, words = finished
    trained = [at for at in heard if at.what == "discover"]
    assert [at.done for at in trained] == [4, 6]
    assert (trained[-1].total, trained[-1].unit) == (6, "step")
    assert trained[-1].said.startswith("loss ")
    assert heard[-1] == imas_jax.Progress("masks to PNG", FRAMES, FRAMES, "frame")
    assert any("discover: continuing from step 3" in line for line in words)


def test_masks_are_read_when_asked_for(finished):
    root, result, _, _, _ = finished
    assert result.workdir == root / "run"
    assert result.masks.names == tuple(f"{t:05d}" for t in range(FRAMES))
    whole = list(result.masks)
    assert len(whole) == len(result.masks) == FRAMES
    assert {(mask.shape, mask.dtype) for mask in whole} == {((48, 64), np.dtype(bool))}
    np.testing.assert_array_equal(result.masks[-1], whole[-1])
    np.testing.assert_array_equal(result.masks[1:3], whole[1:3])
    with pytest.raises(IndexError):
        result.masks[FRAMES]


def test_a_finished_call_returns_at_once_and_its_report_is_one_file(finished, tmp_path):
    root = finished[0]
    with silence():
        again = imas_jax.segment(root / "clip", config=recipe(), workdir=root / "run")
        page = again.report()
        copied = again.report(tmp_path / "mine.html")
    assert page == root / "run/report/report.html"
    assert copied.read_bytes() == page.read_bytes()
    assert again.report(tmp_path) == tmp_path / "report.html"


def test_masks_are_saved_for_other_tools(finished, tmp_path):
    root, result, _, _, _ = finished
    with silence():
        told = []
        paths = result.save(tmp_path / "out", ["png", "coco"], progress=told.append)
        (film,) = result.save(str(tmp_path / "a.webm"), rate=10.0)
        result.save(tmp_path / "out", "soft16")
    assert paths == [tmp_path / "out/png/clip", tmp_path / "out/coco/clip.json"]
    assert told[-1] == imas_jax.Progress("saving", FRAMES, FRAMES, "frame")
    np.testing.assert_array_equal(
        [np.asarray(Image.open(path)) > 0 for path in sorted(paths[0].iterdir())],
        list(result.masks),
    )
    images_told = json.loads(paths[1].read_text())["images"]
    assert [one["file_name"] for one in images_told] == [
        path.name for path in sorted((root / "clip").iterdir())
    ]
    with av.open(str(film)) as container:
        assert container.streams.video[0].average_rate == 10
    with pytest.raises(imas_jax.UserError, match="an MP4 holds no alpha"):
        result.save(tmp_path / "a.mp4", "webm_alpha")
    with pytest.raises(imas_jax.UserError, match="format 'png8'"):
        result.save(tmp_path / "out", ["png8"])


def test_a_finished_run_takes_more_formats_and_repeats_nothing(finished, tmp_path):
    root = finished[0]
    shutil.copytree(root / "run", tmp_path / "run")
    mask = tmp_path / "run/predict/masks/clip/00003.png"
    before = mask.stat().st_mtime_ns
    call = {"config": recipe(), "workdir": tmp_path / "run"}
    formats = ("png", "soft8", "yolo")
    result = imas_jax.segment(
        root / "clip", overrides={"predict.formats": formats}, **call
    )
    folder = tmp_path / "run/predict"
    assert result._run.values("predict")["formats"] == {
        name: str(folder / name) for name in formats[1:]
    }
    assert mask.stat().st_mtime_ns == before
    soft = np.asarray(Image.open(folder / "soft8/clip/00003.png"))
    again = imas_jax.segment(
        root / "clip", overrides={"predict.formats": ("yolo", "coco")}, **call
    )
    assert (folder / "coco/clip.json").is_file()
    (saved,) = again.save(tmp_path / "soft", "soft8")
    np.testing.assert_array_equal(np.asarray(Image.open(saved / "00003.png")), soft)
    shutil.rmtree(folder / "coco")
    imas_jax.segment(root / "clip", overrides={"predict.formats": ("coco",)}, **call)
    assert (folder / "coco/clip.json").is_file()


def test_scores_of_a_result_are_those_of_its_arrays(finished, tmp_path):
    _, result, truth, _, _ = finished
    for t, mask in enumerate(truth):
        api.predict.drawing.write_mask(tmp_path / f"{t:05d}.png", mask)
    whole = imas_jax.score(result, tmp_path)
    assert whole == imas_jax.score(list(result.masks), truth)
    assert (whole.protocol, whole.frames) == ("frame_mean", FRAMES)
    official = imas_jax.score(result.masks, truth, "official")
    assert official.frames == FRAMES - 2
    inner = whole.by_frame.jaccard[1:-1]
    assert official.jaccard == pytest.approx(np.mean(inner))


def test_a_network_gives_a_stream_the_masks_of_its_run(finished):
    root, result, _, _, _ = finished
    with silence():
        network = imas_jax.load(root / "run")
        told = []
        from_arrays = list(network.segment(frames_of(root), progress=told.append))
        from_path = list(network.segment(root / "clip"))
    assert network.channels == tuple(result._run.values("align")["channels"])
    for found in (from_arrays, from_path):
        np.testing.assert_array_equal(found, list(result.masks))
    assert told[-1] == imas_jax.Progress("masks", FRAMES, 0, "frame")
    refined = list(network.segment(root / "clip", overrides={"predict.crf": "gwm"}))
    assert (np.array(refined) != np.array(from_path)).any()


def test_a_stream_is_taken_as_masks_are_asked_for_in_flat_memory(finished):
    root, count, taken = finished[0], 500, 0

    def camera():
        nonlocal taken
        for _ in range(count):
            taken += 1
            yield np.full((144, 192, 3), taken % 255, np.uint8)

    masks = imas_jax.load(root / "run").segment(camera())
    assert next(masks).shape == (144, 192)
    assert taken <= 4  # predict.batch_size
    tracemalloc.start()
    try:
        assert sum(1 for _ in masks) == count - 1
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 5_000_000 < count * 144 * 192 * 3 / 8


@pytest.mark.usefixtures("unchecked")
def test_a_stream_that_fails_midway_has_given_what_came_before(finished):
    root = finished[0]
    frames = frames_of(root)
    masks = imas_jax.load(root / "run").segment([*frames[:5], frames[0][:40]])
    assert len(list(itertools.islice(masks, 4))) == 4  # go through it together
    with pytest.raises(imas_jax.UserError, match=r"frame 5 has .* = \(40, 64\)"):
        next(masks)


def test_training_by_name_gives_the_network(finished):
    root = finished[0]
    with silence():
        network = imas_jax.train(
            recipe(),
            overrides={"data": {"root": str(root / "clip")}, "stage": "align"},
            workdir=root / "run",
        )
    assert network.workdir == root / "run"
    assert network.channels
    with pytest.raises(imas_jax.UserError, match="stage = 'each'"):
        imas_jax.train("video", overrides={"stage": "each"})


def test_only_trained_runs_are_networks(finished, tmp_path):
    with pytest.raises(imas_jax.UserError, match="holds no weights"):
        imas_jax.load(tmp_path)
    shutil.copytree(finished[0] / "run", tmp_path / "run")
    shutil.rmtree(tmp_path / "run/align")
    with pytest.raises(imas_jax.UserError, match="no object channel"):
        imas_jax.load(tmp_path / "run")
    network = imas_jax.load(finished[0] / "run")
    with pytest.raises(imas_jax.UserError, match=r"overrides of model\.channels"):
        network.segment([], overrides={"model.channels": 2})
    with pytest.raises(imas_jax.UserError, match="does not exist"):
        network.segment(tmp_path / "none")


def test_a_run_goes_to_the_hub_without_frames_and_comes_back(
    finished, tmp_path, monkeypatch
):
    root, result = finished[:2]
    config = recipe()
    config.update({"workdir": str(root / "run"), "stage": "push"})
    config.data.root, config.push.to = str(root / "clip"), "hf://some/run"
    with hub_server.at_home(tmp_path, monkeypatch) as hub:
        with silence():
            address = imas_jax.push(root / "run", "hf://some/run")
        _, files = hub.files("some/run")
        sizes = protocol.run(config).values("push")
        with silence():
            network = imas_jax.load(address)
            found = list(network.segment(root / "clip"))
    told = {"discover", "align", "predict", "README.md", "imas_jax.json"}
    told |= {"evaluate"} & {one.name for one in (root / "run").iterdir()}
    assert {name.split("/")[0] for name in files} == told
    suffixes = {Path(name).suffix for name in files if "checkpoints" not in name}
    assert suffixes - {".csv"} == {".json", ".jsonl", ".md"}
    kept = {name.split("/")[2] for name in files if "checkpoints" in name}
    assert kept == {"6"}  # of 2, 4, 6
    own = {n for n in files if n not in ("README.md", "imas_jax.json")}
    assert sizes["files"] == len(own)
    assert sizes["bytes"] == sum(len(files[name]) for name in own)
    assert b'imas_jax.load("hf://some/run")' in files["README.md"]
    np.testing.assert_array_equal(found, list(result.masks))


def snippets():
    page = (ROOT / "docs/library.md").read_text()
    return re.findall(r"^```python\n(.*?)^```", page, re.DOTALL | re.MULTILINE)


@pytest.mark.usefixtures("unchecked")
def test_every_block_of_the_librarys_page_runs(finished, tmp_path, monkeypatch):
    root, load = finished[0], recipes.load
    monkeypatch.chdir(tmp_path)
    # The hub is a stub. What is run is tiny: the finished run, whose clip is a folder.
    shutil.copytree(root / "clip", tmp_path / "clip")
    (tmp_path / "clip.mp4").symlink_to("clip")
    (tmp_path / "runs").mkdir()
    (tmp_path / "runs/clip").symlink_to(root / "run")
    monkeypatch.setattr(
        recipes,
        "load",
        lambda name: recipe() if name == "video" else load(name),
    )
    monkeypatch.setattr(logging, "basicConfig", lambda **_: None)
    space = {}
    assert len(snippets()) > 8
    hub = hub_server.at_home(tmp_path / "hub", monkeypatch)
    with hub, jax.numpy_rank_promotion("allow"):
        for block in snippets():
            exec(block, space)
