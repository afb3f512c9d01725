import dataclasses
import json
import re
import shutil

import av
import cv2
import numpy as np
import pytest
from killer import Killed, Killer
from PIL import Image
from tiny import tiny_config, write_clip

import imas_jax
from imas_jax import protocol
from imas_jax.data import clips
from imas_jax.evaluation import metrics
from imas_jax.runs import restoring
from imas_jax.runs.run import Run
from imas_jax.stages import network, refine

pytestmark = pytest.mark.slow

FRAMES, CUT = 20, 12


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A whole tiny run on one unannotated clip: two shots, of which parts train."""
    root = tmp_path_factory.mktemp("whole")
    write_clip(root / "clip", CUT)
    write_clip(root / "after", FRAMES - CUT, seed=1)
    for t, path in enumerate(sorted((root / "after").iterdir()), start=CUT):
        bright = cv2.imread(str(path)) // 2 + np.uint8(120)
        cv2.imwrite(str(root / "clip" / f"{t:05d}.png"), bright)
    config = tiny_config(root / "clip", root / "run")
    config.data.frames = 18  # two runs of nine
    looked = []
    with pytest.MonkeyPatch.context() as patch:
        find = clips.find_clips
        patch.setattr(
            clips, "find_clips", lambda *how: looked.append(how) or find(*how)
        )
        Run(config.lock(), protocol.STAGES).make(protocol.LAST)
    (root / "looked").write_text(str([split for _, split in looked]))
    return root


def test_clips_are_found_once_a_run(finished):
    assert (finished / "looked").read_text() == "['']"


def test_no_pair_crosses_a_cut_or_frames_left_out(finished):
    firsts = {p.name[:5] for p in (finished / "run/flow").rglob("*forward*.npz")}
    # Frames 0 to 8 and 11 to 19 of the file train, and 12 begins another shot.
    assert firsts == {f"{t:05d}" for t in (*range(8), *range(10, 17))}
    assert np.load(finished / "run/align/soft/clip.npy").shape[0] == 18
    assert np.load(finished / "run/predict/soft/clip.npy").shape[0] == FRAMES


def test_every_stage_leaves_a_result(finished):
    for stage in protocol.STAGES:
        result = json.loads((finished / "run" / stage.name / "result.json").read_text())
        assert result["stage"] == stage.name
        assert result["seconds"] >= 0


def test_every_frame_gets_a_mask_of_its_size_and_name(finished):
    folder = finished / "run/predict/masks/clip"
    assert [p.name for p in sorted(folder.iterdir())] == [
        f"{t:05d}.png" for t in range(FRAMES)
    ]
    with Image.open(folder / "00000.png") as image:
        assert image.size == (64, 48)
        assert image.mode == "P"


def test_the_network_of_both_stages_gives_a_stream_the_runs_masks(finished):
    network = imas_jax.load(finished / "run")
    assert network._last.stage == "refine"
    folder = finished / "run/predict/masks/clip"
    written = [np.asarray(Image.open(path)) > 0 for path in sorted(folder.iterdir())]
    np.testing.assert_array_equal(
        list(network.segment(finished / "clip")), written, strict=True
    )


def test_the_report_opens_without_a_network(finished):
    page = (finished / "run/report/report.html").read_text()
    assert "http" not in page.replace("http-equiv", "")
    assert "No annotations" in page
    assert f"<p>1 clip, {FRAMES} frames</p>" in page
    for caption in ("flow less camera", "reconstructed flow", "residual, its own"):
        assert caption in page
    assert "Least agreement" in page
    # Which channel is the object, where it is unsure, and where the files are.
    assert re.search(r"</i>\d: the object \(motion judge: 0\.\d\d\)", page)
    assert len(re.findall(r"</i>\d: not the object", page)) == 2
    assert f'data-count="{FRAMES}"' in page
    assert "<figcaption>motion evidence</figcaption>" in page
    assert 'href="videos/clip.mp4"' in page
    assert 'href="../predict/masks/clip/"' in page
    told = json.loads((finished / "run/report/result.json").read_text())["outputs"]
    assert 0 < told["unsure"]["clip"] <= 1


def test_a_second_run_does_nothing_and_says_so(finished, caplog):
    before = {
        p: p.stat().st_mtime_ns for p in (finished / "run").rglob("*") if p.is_file()
    }
    config = tiny_config(finished / "clip", finished / "run")
    config.data.frames = 18
    with caplog.at_level("INFO"):
        Run(config.lock(), protocol.STAGES).make(protocol.LAST)
    after = {
        p: p.stat().st_mtime_ns for p in (finished / "run").rglob("*") if p.is_file()
    }
    assert before == after
    assert sum("already done" in r.message for r in caplog.records) >= len(
        protocol.STAGES
    )


def test_a_run_whose_workdir_and_data_moved_is_still_finished(
    finished, tmp_path, monkeypatch
):
    shutil.copytree(finished / "run", tmp_path / "moved run")
    shutil.copytree(finished / "clip", tmp_path / "moved/clip")
    monkeypatch.setattr(cv2, "__version__", "99.0")

    def never(run):
        raise AssertionError("worked again")

    stages = tuple(dataclasses.replace(s, work=never) for s in protocol.STAGES)
    config = tiny_config(tmp_path / "moved/clip", tmp_path / "moved run")
    config.data.frames, config.data.partial = 18, True
    Run(config.lock(), stages).make(protocol.LAST)


def test_a_restored_run_predicts_what_the_run_itself_predicted(finished, tmp_path):
    config = tiny_config(finished / "clip", tmp_path / "again")
    config.restore, config.stage = str(finished / "run"), "evaluate"
    config.model.width = 16  # the restored run's network is taken, not this
    Run(restoring.adopt_network(config), protocol.STAGES).make("evaluate")
    for path in sorted((finished / "run/predict/soft").iterdir()):
        np.testing.assert_array_equal(
            np.load(path), np.load(tmp_path / "again/predict/soft" / path.name)
        )
    assert not (tmp_path / "again/discover").exists()
    shutil.rmtree(tmp_path / "again")


def test_a_restored_run_on_a_new_video_only_predicts(finished, tmp_path):
    write_clip(tmp_path / "other", frames=5, seed=3)
    config = tiny_config(tmp_path / "other", tmp_path / "used")
    config.restore, config.predict.formats = str(finished / "run"), ("png", "soft8")
    Run(restoring.adopt_network(config), protocol.STAGES).make(protocol.LAST)
    stages = {p.name for p in (tmp_path / "used").iterdir()}
    assert stages == {"predict", "evaluate", "report"}
    for kind in ("masks", "soft8"):
        assert len(list((tmp_path / "used/predict" / kind / "other").iterdir())) == 5
    with av.open(str(tmp_path / "used/report/videos/other.mp4")) as film:
        assert film.streams.video[0].codec_context.name == "h264"
        assert len(list(film.decode(video=0))) == 5


def test_targets_made_while_training_survive_a_kill(finished, tmp_path):
    config = tiny_config(finished / "clip", tmp_path / "whole")
    config.data.frames = 18
    config.restore, config.restore_until = str(finished / "run"), "align"
    config.stage = "refine"
    config.target.when, config.target.resolution = "online", "mask"
    config.target.crf, config.refine.ema = "authors_target:iterations=3", 0.9
    config.lock()
    whole, killed = Run(config, protocol.STAGES), Run(config, protocol.STAGES)
    killed.workdir = tmp_path / "killed"
    for run in (whole, killed):
        run.make("flow")
        run.make("prepare")
    whole.make("refine")
    told = whole.result("refine")
    assert told["outputs"]["targets"] == {}
    assert told["outputs"]["last"]["appearance"] > 0
    with pytest.raises(Killed):
        refine.work(killed, Killer())
    assert refine.work(killed).identity == told["identity"]
    # A run that restores it need not know how its targets were made.
    later = tiny_config(finished / "clip", tmp_path / "later")
    later.restore, later.restore_until = str(tmp_path / "whole"), "refine"
    folder = tmp_path / "whole/refine"
    state = network.final_state(restoring.adopt_network(later), folder, "refine")
    assert state.teacher is not None
    # Nor one that starts stage 1 with its weights, and knows no target.
    start = tiny_config(finished / "clip", tmp_path / "start")
    start.discover.init = str(tmp_path / "whole")
    del start.target, start.refine
    assert network.weights_of_run(start, "discover") is not None


def test_lost_and_torn_flow_files_are_made_again(finished, tmp_path, caplog):
    shutil.copytree(finished / "run", tmp_path / "run")
    files = sorted((tmp_path / "run/flow").rglob("*.npz"))
    whole = [path.read_bytes() for path in files[:2]]
    files[0].unlink()
    files[1].write_bytes(whole[1][:200])
    config = tiny_config(finished / "clip", tmp_path / "run")
    config.data.frames = 18
    Run(config.lock(), protocol.STAGES).make("flow")
    assert [path.read_bytes() for path in files[:2]] == whole


def test_a_run_that_the_evidence_alone_teaches_finds_the_square(tmp_path):
    """What configs/video.py does, without annotations and without a motion loss."""
    truth = write_clip(tmp_path / "clip", size=(96, 128))
    config = tiny_config(tmp_path / "clip", tmp_path / "run")
    preset = "authors_post:iterations=5"
    config.motion.update({"evidence": "network", "crf": preset})
    config.target.crf = config.predict.crf = preset
    config.discover.update({"motion_weight": 0.0, "evidence_weight": 1.0, "steps": 80})
    config.discover.update({"checkpoint_every": 80, "log_every": 20})
    config.refine.motion_weight = 0.0
    config.predict.evidence = 0.3
    config.model.channels = 2
    config.lock()
    run = Run(config, protocol.STAGES)
    run.make(protocol.LAST)
    assert run.values("align")["channels"] == [1]
    log = [
        json.loads(line)
        for line in (run.workdir / "discover/metrics.jsonl").read_text().splitlines()
    ]
    assert "motion" not in log[-1]
    assert log[-1]["evidence"] < log[0]["evidence"]
    masks = sorted((run.workdir / "predict/masks/clip").iterdir())
    found = [np.asarray(Image.open(path)) > 0 for path in masks]
    overlap = [metrics.jaccard(a, b) for a, b in zip(found, truth, strict=True)]
    assert np.mean(overlap) > 0.6
