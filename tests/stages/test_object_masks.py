"""Object masks of a clip from soft masks, motion evidence, flow and the CRF."""

import numpy as np
import pytest
from tiny import tiny_config, write_clip

from imas_jax import protocol
from imas_jax.appearance import crf
from imas_jax.runs.run import Run
from imas_jax.stages import inputs, object_masks


@pytest.fixture(scope="module")
def clip_run(tmp_path_factory):
    """A clip with flow, and soft masks of channel 2 that miss one frame."""
    root = tmp_path_factory.mktemp("together")
    truth = np.stack(write_clip(root / "clip", size=(96, 128)))
    config = tiny_config(root / "clip", root / "run")
    config.predict.update({"steady": 0.0, "crf_agreement": 0.0})
    run = Run(config.lock(), protocol.STAGES)
    run.make("flow")
    labels = np.where(truth, 2, 0)
    labels[4] = 0
    soft = (np.eye(3)[labels] * 0.7 + 0.1)[:, 2::4, 2::4].astype(np.float16)
    return run, inputs.clips(run)[0], soft, truth


def changed(run, **values):
    config = run.config.copy_and_resolve_references().unlock()
    config.predict.update(values)
    return Run(config.lock(), protocol.STAGES)


def test_the_object_is_the_sum_over_its_channels(clip_run):
    _, _, soft, _ = clip_run
    got = list(object_masks.object_probabilities(soft, (1, 2)))
    wanted = soft[..., 1].astype(np.float32) + soft[..., 2].astype(np.float32)
    np.testing.assert_allclose(np.stack(got), wanted, atol=1e-6)


def test_steadied_along_the_flow_the_missing_frame_is_mended(clip_run):
    run, clip, soft, truth = clip_run
    # Evidence that knows nothing: the masks' own neighbours have to tell.
    found = {}
    for kept in (0.0, 0.9):
        other = changed(run, evidence=0.1, steady=kept)
        unsure = (np.full(clip.size, 0.5, np.float32) for _ in truth)
        masks = object_masks.binary_masks(other, clip, soft, (2,), "", unsure)
        found[kept] = np.stack(list(masks))
    assert not found[0.0][4].any()
    for t in range(8):
        assert object_masks.agreement(found[0.9][t], truth[t]) > 0.6


def test_masks_are_not_steadied_across_a_cut(tmp_path):
    for scene in (0, 1):
        write_clip(tmp_path / f"scene {scene}", frames=5, seed=scene)
        (tmp_path / "film").mkdir(exist_ok=True)
        for t, file in enumerate(sorted((tmp_path / f"scene {scene}").iterdir())):
            file.rename(tmp_path / "film" / f"{5 * scene + t:05d}.png")
    config = tiny_config(tmp_path / "film", tmp_path / "run")
    config.data.cuts = "find"
    config.predict.update({"evidence": 0.1, "steady": 0.9})
    run = Run(config.lock(), protocol.STAGES)
    run.make("flow")
    clip = inputs.clips(run)[0]
    soft = np.zeros((10, 12, 16, 3), np.float16)
    soft[:5, ..., 2] = soft[5:, ..., 0] = (
        1  # all of the first scene, none of the second
    )
    nothing = (np.full(clip.size, 0.5, np.float32) for _ in soft)
    found = list(object_masks.binary_masks(run, clip, soft, (2,), "", nothing))
    assert [mask.mean() for mask in found] == [1] * 5 + [0] * 5


def test_a_frame_that_the_crf_turns_over_stays_as_it_was(clip_run, monkeypatch):
    run, clip, soft, _ = clip_run
    turned = (2, 4)  # frame 4's mask is empty, and there the CRF finds something

    def refine_many(pairs, *_):
        for t, (_, likely) in enumerate(pairs):
            probability = 1 - likely if t in turned else likely
            yield crf.CrfResult(probability > 0.5, probability)

    monkeypatch.setattr(crf, "refine_many", refine_many)

    def found(least):
        other = changed(run, crf_agreement=least)
        drawn = object_masks.binary_masks(other, clip, soft, (2,), "authors_post")
        return np.stack(list(drawn))

    alone, believed = found(0.5), found(0.0)
    for t in range(8):
        assert (alone[t] == believed[t]).all() == (t not in turned)
    np.testing.assert_array_equal(alone[2], ~believed[2])
    assert alone[2].any()
    assert not alone[4].any()


def test_parts_along_the_border_go_after_the_crf(clip_run, monkeypatch):
    run, clip, soft, truth = clip_run

    def refine_many(pairs, *_):
        for t, _ in enumerate(pairs):
            probability = truth[t].astype(np.float32)
            probability[-10:] = 1  # reaches along three sides
            yield crf.CrfResult(probability > 0.5, probability)

    monkeypatch.setattr(crf, "refine_many", refine_many)

    def found(contact):
        other = changed(run, border_contact=contact)
        drawn = object_masks.binary_masks(other, clip, soft, (2,), "authors_post")
        return np.stack(list(drawn))

    np.testing.assert_array_equal(found(0.25), truth)
    kept = found(0.0)
    assert kept[:, -10:].all()
    np.testing.assert_array_equal(kept[:, :-10], truth[:, :-10])


def test_agreement_of_masks():
    one = np.eye(4, dtype=bool)
    assert object_masks.agreement(one, one) == 1
    assert object_masks.agreement(one, ~one) == 0
    assert object_masks.agreement(one, np.ones_like(one)) == 0.25
    assert object_masks.agreement(np.zeros_like(one), np.zeros_like(one)) == 1


def test_the_motion_evidence_has_its_share_of_the_probability(clip_run):
    run, clip, soft, truth = clip_run
    config = run.config.copy_and_resolve_references().unlock()

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
