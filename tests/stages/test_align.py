"""The align stage on hand-made soft masks: every judge finds the moving square."""

import itertools

import numpy as np
import pytest
from tiny import tiny_config, write_clip

from imas_jax import protocol
from imas_jax.appearance import local_features
from imas_jax.errors import UserError
from imas_jax.runs.run import Run
from imas_jax.stages import align, features, inputs, motion, refine


@pytest.fixture(scope="module")
def prepared(tmp_path_factory):
    """A clip with flow, and soft masks whose channel 2 is the square."""
    root = tmp_path_factory.mktemp("align")
    truth = np.stack(write_clip(root / "clip", size=(96, 128)))
    config = tiny_config(root / "clip", root / "run")
    Run(config.lock(), protocol.STAGES).make("flow")
    labels = np.where(truth, 2, np.arange(128) // 64)
    soft = (np.eye(3)[labels] * 0.7 + 0.1)[:, 2::4, 2::4]
    (root / "soft").mkdir()
    np.save(root / "soft" / "clip.npy", soft.astype(np.float16))
    return root


def choose(root, **fields):
    config = tiny_config(root / "clip", root / "run")
    config.align.update(fields)
    config.lock()
    run = Run(config, protocol.STAGES)
    return align.choose(run, root / "soft", inputs.clips(run))


# In one frame alone, half of the ground is cut out as cheaply as the square.
JUDGES = [*itertools.product(align.PARTS, ["first", "all"])]
JUDGES.remove(("cut", "first"))


@pytest.mark.parametrize(("score", "judged"), JUDGES)
def test_every_judge_finds_the_moving_square(prepared, score, judged):
    chosen = choose(prepared, score=score, judged=judged)
    assert chosen.channels == (2,)
    assert chosen.judge == score


@pytest.mark.parametrize("kind", ["palette", "superpixels"])
def test_features_are_chosen_by_name(prepared, kind):
    chosen = choose(prepared, score="semantic", features=kind, threshold=0.7)
    assert chosen.channels == (2,)


def test_both_is_the_mean_of_the_two_judges(prepared):
    parts = [choose(prepared, score=s).scores for s in ("motion", "semantic")]
    both = choose(prepared, score="both").scores
    np.testing.assert_allclose(both, np.mean(parts, axis=0))


def test_the_constraint_compares_the_features_that_the_config_names(prepared):
    config = tiny_config(prepared / "clip", prepared / "run")
    config.target.semantic_constraint = True
    config.align.features = "palette"
    palette = refine.recipe(Run(config, protocol.STAGES)).constraint
    frame = np.random.default_rng(0).integers(0, 255, (48, 64, 3)).astype(np.uint8)
    (found,) = palette.features([frame])
    np.testing.assert_array_equal(found, local_features.palette(frame))
    assert palette.threshold == features.THRESHOLDS["palette"]
    config.align.features = "superpixels"
    others = refine.recipe(Run(config, protocol.STAGES)).constraint
    assert others.digest != palette.digest  # its targets are others


@pytest.mark.parametrize(
    "fields",
    [
        {"score": "oracle"},
        {"judged": "last"},
        {"score": "semantic", "features": "weights"},
    ],
)
def test_unknown_judges_and_missing_weights_are_refused(prepared, fields):
    with pytest.raises(UserError, match="align"):
        choose(prepared, **fields)


def test_what_the_evidence_alone_taught_is_the_object_whatever_is_judged(prepared):
    config = tiny_config(prepared / "clip", prepared / "run")
    config.discover.update({"motion_weight": 0.0, "evidence_weight": 1.0})
    run = Run(config.lock(), protocol.STAGES)
    chosen = align.choose(run, prepared / "soft", inputs.clips(run))
    assert chosen.channels == (motion.GUIDED,)
