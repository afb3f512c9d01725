"""Object masks of a clip from soft masks and stored flow, alone or together."""

import numpy as np
import pytest
from tiny import tiny_config, write_clip

from imas_jax import protocol
from imas_jax.errors import UserError
from imas_jax.runs.run import Run
from imas_jax.stages import inputs, object_masks


@pytest.fixture(scope="module")
def clip_run(tmp_path_factory):
    """A clip with flow, and soft masks of channel 2 that miss one frame."""
    root = tmp_path_factory.mktemp("together")
    truth = np.stack(write_clip(root / "clip", size=(96, 128)))
    config = tiny_config(root / "clip", root / "run")
    config.predict.whole_clip = "on:passes=4"
    run = Run(config.lock(), protocol.STAGES)
    run.make("flow")
    labels = np.where(truth, 2, 0)
    labels[4] = 0
    soft = (np.eye(3)[labels] * 0.7 + 0.1)[:, 2::4, 2::4].astype(np.float16)
    return run, inputs.clips(run)[0], soft, truth


def test_off_is_the_sum_over_the_objects_channels(clip_run):
    run, clip, soft, _ = clip_run
    got = list(object_masks.object_probabilities(run, clip, soft, (1, 2), "off"))
    wanted = soft[..., 1].astype(np.float32) + soft[..., 2].astype(np.float32)
    np.testing.assert_allclose(np.stack(got), wanted, atol=1e-6)


def test_together_the_missing_frame_is_mended(clip_run):
    run, clip, soft, truth = clip_run
    got = list(object_masks.object_probabilities(run, clip, soft, (2,), "on"))
    small = truth[4, 2::4, 2::4]
    overlap = np.sum((got[4] > 0.5) & small) / np.sum((got[4] > 0.5) | small)
    assert overlap > 0.7


def test_final_masks_are_mended_at_frame_size(clip_run):
    run, clip, soft, truth = clip_run
    found = list(object_masks.binary_masks(run, clip, soft, (2,), preset=""))
    assert [mask.shape for mask in found] == [(96, 128)] * 8
    overlap = np.sum(found[4] & truth[4]) / np.sum(found[4] | truth[4])
    assert overlap > 0.7


def test_nothing_is_computed_before_the_first_mask_is_drawn(clip_run):
    run, clip, _, _ = clip_run
    object_masks.object_probabilities(run, clip, np.zeros(0), (2,), "nonsense")


def test_flow_of_other_gaps_is_refused(clip_run):
    run, clip, soft, _ = clip_run
    config = run.config.copy_and_resolve_references().unlock()
    config.flow.gaps = (2,)
    other = Run(config.lock(), protocol.STAGES)
    with pytest.raises(UserError, match="gap 1"):
        next(object_masks.object_probabilities(other, clip, soft, (2,), "on"))


def test_the_motion_evidence_has_its_share_of_the_probability(clip_run):
    run, clip, soft, truth = clip_run
    config = run.config.copy_and_resolve_references().unlock()
    config.predict.whole_clip = "off"

    def found(share, evidence):
        config.predict.evidence = share
        mixed = Run(config.copy_and_resolve_references().lock(), protocol.STAGES)
        return np.stack(
            list(object_masks.binary_masks(mixed, clip, soft, (2,), "", evidence))
        )

    moving = [one.astype(np.float32) for one in truth]
    np.testing.assert_array_equal(found(1.0, iter(moving)), truth)
    # Alone, the likeliest of three channels wins, with evidence what is above a half.
    assert (found(0.0, iter(moving)) == found(0.3, None)).mean() > 0.99
    # Frame 4's own mask is missing: three tenths cannot bring it back, six can.
    assert not found(0.3, iter(moving))[4].any()
    assert (found(0.6, iter(moving))[4] == truth[4]).mean() > 0.98
    with pytest.raises(ValueError, match="zip"):
        found(0.3, iter(moving[1:]))
