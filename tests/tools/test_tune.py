"""The tuner on folders of masks of any make, and on the checkpoints of runs."""

import json

import cv2
import jax
import numpy as np
import pytest
from PIL import Image
from tiny import tiny_config, write_clip

from configs import align as align_config
from imas_jax import protocol
from imas_jax.errors import UserError
from imas_jax.runs.run import Run
from imas_jax.stages import network
from imas_jax.training.checkpoints import Checkpoints

STAGES = (*protocol.STAGES, *protocol.TOOLS)
SIZE = (96, 128)


@pytest.fixture(scope="module")
def frames(tmp_path_factory):
    """Two clips of a moving square and the truth that no judge sees."""
    root = tmp_path_factory.mktemp("frames")
    truth = {
        name: write_clip(root / name, frames=3, size=SIZE, seed=seed)
        for name, seed in (("one", 0), ("two", 1))
    }
    return root, truth


def write(folder, masks, encoding):
    """Store masks as peers do; every encoding holds the same masks."""
    for name, sequence in masks.items():
        (folder / name).mkdir(parents=True, exist_ok=True)
        for t, mask in enumerate(sequence):
            path = folder / name / f"{t:05d}.png"
            if encoding == "palette":
                image = Image.fromarray(mask.astype(np.uint8) * 2).convert("P")
                image.putpalette(list(range(256)) * 3)
                image.putdata((mask * 2).ravel().tolist())
                image.save(path)
            elif encoding == "0/255":
                cv2.imwrite(str(path), mask * np.uint8(255))
            elif encoding == "0/1":
                cv2.imwrite(str(path), mask * np.uint8(1))
            elif encoding == "soft 8":
                cv2.imwrite(str(path), np.where(mask, 200, 20).astype(np.uint8))
            else:
                small = np.where(mask, 60000, 3000).astype(np.uint16)[2::4, 2::4]
                cv2.imwrite(str(path), small)
    return folder


def spoiled(masks, how):
    return {name: [how(mask) for mask in sequence] for name, sequence in masks.items()}


def tune(frames, folders, workdir, **fields):
    config = align_config.get_config()
    config.workdir = str(workdir)
    config.align.frames = str(frames)
    config.align.masks = ",".join(map(str, folders))
    config.align.update(fields)
    Run(config.lock(), STAGES).make(protocol.goal(config))
    return json.loads((workdir / "tune/result.json").read_text())["outputs"]


@pytest.mark.parametrize("score", ["semantic", "motion"])
def test_better_masks_rank_higher_without_annotations(frames, tmp_path, score):
    root, truth = frames
    folders = [
        write(tmp_path / "inverse", spoiled(truth, np.logical_not), "0/255"),
        write(tmp_path / "right", truth, "0/255"),
        write(
            tmp_path / "shifted", spoiled(truth, lambda m: np.roll(m, 20, 1)), "0/255"
        ),
    ]
    told = tune(root, folders, tmp_path / "run", score=score)
    assert told["best"] == "right"
    assert set(told["ranking"][0]["sequences"]) == {"one", "two"}
    text = (tmp_path / "run/tune/ranking.txt").read_text()
    assert text.index("right") < text.index("inverse")


def test_every_encoding_of_the_same_masks_scores_the_same(frames, tmp_path):
    root, truth = frames
    encodings = ["palette", "0/255", "0/1", "soft 8"]
    folders = [
        write(tmp_path / encoding.replace("/", "-"), truth, encoding)
        for encoding in encodings
    ]
    folders.append(write(tmp_path / "soft 16", truth, "soft 16, small"))
    told = tune(root, folders, tmp_path / "run", score="motion")
    scores = {row["name"]: row["score"] for row in told["ranking"]}
    same = [scores[name.replace("/", "-")] for name in encodings]
    np.testing.assert_allclose(same, same[0])
    assert scores["soft 16"] == pytest.approx(same[0], abs=0.1)


def test_a_second_run_sees_masks_that_changed(frames, tmp_path):
    root, truth = frames
    a = write(tmp_path / "a", spoiled(truth, np.logical_not), "0/255")
    b = write(tmp_path / "b", spoiled(truth, lambda m: np.roll(m, 9, 1)), "0/255")
    assert tune(root, [a, b], tmp_path / "run", score="motion")["best"] == "b"
    write(a, truth, "0/255")
    assert tune(root, [a, b], tmp_path / "run", score="motion")["best"] == "a"


def test_one_frame_is_enough_to_judge_by_looks_but_not_by_motion(tmp_path):
    truth = {"still": write_clip(tmp_path / "frames/still", frames=1, size=SIZE)}
    folders = [
        write(tmp_path / "inverse", spoiled(truth, np.logical_not), "0/255"),
        write(tmp_path / "right", truth, "0/255"),
    ]
    assert tune(tmp_path / "frames", folders, tmp_path / "run")["best"] == "right"
    with pytest.raises(UserError, match="still: 1 frame"):
        tune(tmp_path / "frames", folders, tmp_path / "run", score="motion")


def test_a_last_frame_without_a_mask_is_not_judged_for_anybody(frames, tmp_path):
    root, truth = frames
    a = write(tmp_path / "a", truth, "0/255")
    b = write(tmp_path / "b", truth, "0/255")
    for name in truth:
        (b / name / "00002.png").unlink()
    told = tune(root, [a, b], tmp_path / "run", judged="all", score="motion")
    scores = [row["score"] for row in told["ranking"]]
    assert scores[0] == scores[1]
    (b / "one/00001.png").unlink()
    with pytest.raises(UserError, match=r"b/one: 1 mask.s. missing: 00001"):
        tune(root, [a, b], tmp_path / "run", judged="all", score="motion")


def test_features_of_a_network_under_comparison_do_not_judge(frames, tmp_path):
    folder = write(tmp_path / "a", frames[1], "0/255")
    with pytest.raises(UserError, match="stage1"):
        tune(frames[0], [folder], tmp_path / "run", features="stage1")


def test_only_shared_sequences_are_judged_and_one_line_says_so(
    frames, tmp_path, caplog
):
    root, truth = frames
    a = write(tmp_path / "a", truth, "0/255")
    b = write(tmp_path / "b", {"two": truth["two"]}, "0/255")
    told = tune(root, [a, b], tmp_path / "run")
    assert list(told["ranking"][0]["sequences"]) == ["two"]
    warned = [r.message for r in caplog.records if "not judged" in r.message]
    assert [line.endswith(": one") for line in warned] == [True]


def test_everything_wrong_with_mask_folders_is_told_at_once(frames, tmp_path):
    root, truth = frames
    late = write(tmp_path / "late", truth, "0/255")
    (late / "one/00000.png").unlink()
    square = write(tmp_path / "square", spoiled(truth, lambda m: m[:, :96]), "0/255")
    (tmp_path / "bare").mkdir()
    folders = [late, square, tmp_path / "bare"]
    with pytest.raises(UserError) as error:
        tune(root, folders, tmp_path / "run")
    told = str(error.value)
    assert "late/one: 1 mask(s) missing: 00000" in told
    assert "(96, 96) (h, w), its frame (96, 128)" in told
    assert "no masks in" in told


def test_no_sequence_in_common_names_both_sides(frames, tmp_path):
    root, truth = frames
    other = write(tmp_path / "other", {"three": truth["one"]}, "0/255")
    with pytest.raises(UserError, match="sequences three; the frames are of one, two"):
        tune(root, [other], tmp_path / "run")


def test_folders_that_do_not_exist_are_named(frames, tmp_path):
    with pytest.raises(UserError, match="no such folder"):
        tune(frames[0], [tmp_path / "nowhere*"], tmp_path / "run")


def test_empty_masks_score_zero_with_a_warning(frames, tmp_path, caplog):
    root, truth = frames
    right = write(tmp_path / "right", truth, "0/255")
    empty = write(tmp_path / "empty", spoiled(truth, np.zeros_like), "0/255")
    told = tune(root, [empty, right], tmp_path / "run")
    assert told["ranking"][-1]["name"] == "empty"
    assert told["ranking"][-1]["score"] == 0
    assert any("every judged mask is empty" in r.message for r in caplog.records)


def untrained_run(frames, workdir, channels, steps):
    """Leave what stage discover leaves, without training."""
    config = tiny_config(frames, workdir)
    config.model.channels = channels
    run = Run(config.lock(), STAGES)
    stage = run.stages["discover"]
    folder = workdir / "discover"
    checkpoints = Checkpoints(folder / "checkpoints")
    (folder / "config.json").write_text(json.dumps({"config": run.subset(stage)}))
    template = network.template(config, "discover")
    for step in steps:
        rng = np.random.default_rng(step)
        state = jax.tree.map(
            lambda x, rng=rng: rng.uniform(0.1, 0.5, x.shape).astype(x.dtype), template
        )
        checkpoints.save(state.replace(step=np.int32(step)))
    checkpoints.close()


def test_a_sweep_ranks_every_channel_of_every_checkpoint(frames, tmp_path):
    root, _ = frames
    for channels in (2, 3):
        untrained_run(root / "one", tmp_path / f"runs/c{channels}", channels, (5, 10))
    config = tiny_config(root / "one", tmp_path / "sweep")
    config.stage, config.align.sweep = "align", str(tmp_path / "runs/*")
    config.align.judged = "first"
    Run(config.lock(), STAGES).make(protocol.goal(config))
    told = json.loads((tmp_path / "sweep/tune/result.json").read_text())["outputs"]
    assert {row["name"] for row in told["ranking"]} == {
        f"c{c} step {step} channel {i}"
        for c in (2, 3)
        for step in (5, 10)
        for i in range(c)
    }
    scores = {row["name"]: row["score"] for row in told["ranking"]}
    steps = [[scores[f"c3 step {s} channel {i}"] for i in range(3)] for s in (5, 10)]
    assert steps[0] != steps[1]
