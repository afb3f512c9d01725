"""Each way to start from another run, in miniature, to the report."""

import json

import jax
import numpy as np
import pytest
from tiny import tiny_config, write_clip

from imas_jax import protocol
from imas_jax.errors import UserError
from imas_jax.runs import restoring
from imas_jax.runs.run import Run
from imas_jax.stages import checks, discover, network


@pytest.fixture(scope="module")
def parent(tmp_path_factory):
    """YouTube-VOS in miniature, stage 1 trained on it, and a clip of DAVIS."""
    root = tmp_path_factory.mktemp("parent")
    write_clip(root / "youtube/train_all_frames/JPEGImages/one", frames=6, seed=5)
    write_clip(root / "davis/clip", frames=6)
    config = tiny_config(root / "youtube", root / "parent")
    config.data.layout, config.data.split = "youtube_vos", ""
    config.discover.ema, config.seed = 0.5, 7
    Run(config.lock(), protocol.STAGES).make("discover")
    return root


@pytest.fixture(scope="module")
def transferred(parent):
    """The second command of configs/youtube_vos.py, stage by stage and then again."""
    for stage in ("discover", "align", "refine", "report", "report"):
        finish(transfer(parent), stage)
    return parent / "transferred"


def transfer(parent):
    config = tiny_config(parent / "davis/clip", parent / "transferred")
    config.discover.init = str(parent / "parent")
    return config


def finish(config, stage="report"):
    config.stage = stage
    config = restoring.adopt_network(config.lock())
    checks.check(config, stage)
    Run(config, protocol.STAGES).make(stage)


def told(workdir, stage):
    return json.loads((workdir / stage / "result.json").read_text())


@pytest.mark.slow
def test_training_starts_from_given_weights_and_ends_with_a_report(parent, transferred):
    assert (transferred / "report/report.html").is_file()
    start = told(transferred, "discover")["config"]["discover.init"]
    assert start == told(parent / "parent", "discover")["identity"]
    assert "discover.init" not in told(transferred, "flow")["config"]
    start = discover.starting_variables(Run(transfer(parent), protocol.STAGES))
    theirs = tiny_config(parent / "davis/clip", parent / "parent")
    theirs.discover.ema = 0.5
    folder = parent / "parent/discover"
    ended = network.final_state(theirs, folder, "discover").best_variables
    assert jax.tree.all(jax.tree.map(np.array_equal, start, ended))


@pytest.mark.slow
def test_the_run_that_training_started_from_may_move_or_go(parent, transferred, caplog):
    (parent / "parent").rename(parent / "moved")
    config = transfer(parent)
    config.discover.init = str(parent / "moved")
    before = told(transferred, "report")
    finish(config)
    config = transfer(parent)  # names a run that is not there any more
    finish(config)
    assert told(transferred, "report") == before
    assert "discover.init cannot be read any more" in caplog.text
    (parent / "moved").rename(parent / "parent")


@pytest.mark.slow
def test_a_restored_run_is_refined_anew_and_restored_in_turn(
    parent, transferred, tmp_path
):
    refined = tiny_config(parent / "davis/clip", tmp_path / "refined")
    refined.restore, refined.restore_until = str(transferred), "align"
    refined.refine.steps, refined.target.crf = 2, "weak_unary"
    refined.model.width = 16  # the restored run's network is taken, not this
    finish(refined, "refine")
    finish(refined, "report")
    made = {path.name for path in (tmp_path / "refined").iterdir()}
    assert not {"discover", "align"} & made
    assert told(tmp_path / "refined", "refine")["outputs"]["steps"] == 2
    used = tiny_config(parent / "davis/clip", tmp_path / "used")
    used.restore, used.refine.steps = str(tmp_path / "refined"), 4
    finish(used)
    for path in (tmp_path / "refined/predict/soft").iterdir():
        np.testing.assert_array_equal(
            np.load(path), np.load(tmp_path / "used/predict/soft" / path.name)
        )


@pytest.mark.slow
def test_other_clips_are_aligned_and_refined_from_a_restored_stage_1(
    parent, transferred, tmp_path
):
    write_clip(tmp_path / "other", frames=5, seed=3)
    config = tiny_config(tmp_path / "other", tmp_path / "run")
    config.restore, config.restore_until = str(transferred), "align"
    with pytest.raises(UserError, match="no stage-1 masks of other") as refusal:
        finish(config)
    assert "restore_until=discover" in refusal.value.fix
    config.restore_until = "discover"
    config = tiny_config(tmp_path / "other", tmp_path / "second")
    config.restore, config.restore_until = str(transferred), "discover"
    finish(config)
    made = {path.name for path in (tmp_path / "second").iterdir()}
    assert {"align", "refine", "report"} <= made
    assert "discover" not in made


@pytest.mark.slow
def test_stage_2_may_start_from_another_runs_weights(parent, transferred, tmp_path):
    config = tiny_config(parent / "davis/clip", tmp_path / "run")
    config.restore, config.restore_until = str(transferred), "align"
    config.refine.init, config.refine.steps = str(parent / "parent"), 2
    finish(config, "refine")
    start = told(tmp_path / "run", "refine")["config"]["refine.init"]
    assert start == told(parent / "parent", "discover")["identity"]


@pytest.mark.slow
def test_weights_of_another_network_are_refused_before_any_work(parent, tmp_path):
    config = tiny_config(parent / "davis/clip", tmp_path / "run")
    config.discover.init, config.model.width = str(parent / "parent"), 8
    with pytest.raises(UserError):
        finish(config)
    config = tiny_config(parent / "davis/clip", tmp_path / "run")
    config.discover.init = str(tmp_path / "nowhere")
    with pytest.raises(UserError, match="holds no weights"):
        finish(config)
    assert not (tmp_path / "run").exists()
