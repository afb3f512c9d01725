import dataclasses

import clip_writer
import cv2
import numpy as np
import pytest

from imas_jax.data import clips
from imas_jax.flow import evidence
from imas_jax.stages import flow, motion_evidence

COUNT = 9


@pytest.fixture(scope="module")
def network():
    return evidence.load(evidence.weights("dis"))


@pytest.fixture(scope="module")
def setup(tmp_path_factory):
    root = tmp_path_factory.mktemp("evidence")
    clip_writer.write_clip(root / "frames" / "dog", COUNT)
    config = clip_writer.config(root / "frames")
    (clip,) = clips.find_clips(config.data)
    flow.run(config, (clip,), root / "flow")
    return clip, flow.flow_folder(config, root / "flow")


def test_every_frame_gets_probabilities_at_the_clips_size(setup, network):
    clip, folder = setup
    found = list(motion_evidence.of_clip(network, folder, clip, (1,)))
    assert len(found) == COUNT
    for likely in found:
        assert likely.shape == clip.size
        assert likely.dtype == np.float32
        assert likely.min() >= 0
        assert likely.max() <= 1


def test_the_window_gives_what_the_whole_clip_would(setup):
    clip, folder = setup
    ahead, behind = {}, {}
    for t in range(COUNT - 1):
        there, back = (folder.read(clip.name, t, d) for d in ("forward", "backward"))
        ahead[t] = evidence.to_grid(there.flow, back.flow, there.homography, clip.size)
        behind[t + 1] = evidence.to_grid(
            back.flow, there.flow, back.homography, clip.size
        )
    window = motion_evidence._Window(folder, clip, 1, 0, COUNT)
    small = [evidence.shrink(clip.read(t)) for t in range(COUNT)]
    for t in range(COUNT):
        found = window.observe(t)
        motions = evidence.neighbours(t, ahead, behind)
        looks = [
            None if m is None else (m, small[t + offset])
            for offset, m in zip(evidence.OFFSETS, motions, strict=True)
        ]
        expected = evidence.observe(small[t], looks)
        for name, value in vars(expected).items():
            np.testing.assert_array_equal(getattr(found, name), value)
        assert len(window._frames) <= 2 * motion_evidence.REACH + 1


def test_nothing_is_read_across_a_cut(setup, network):
    clip, folder = setup
    cut = dataclasses.replace(clip, cuts=(4, 5))
    whole = list(motion_evidence.of_clip(network, folder, clip, (1,)))
    parts = list(motion_evidence.of_clip(network, folder, cut, (1,)))
    assert len(parts) == COUNT
    assert not parts[4].any()  # a shot of one frame
    assert not np.array_equal(parts[3], whole[3])
    first = dataclasses.replace(clip, frames=clip.frames[:4])
    alone = list(motion_evidence.of_clip(network, folder, first, (1,)))
    for one, other in zip(parts[:4], alone, strict=True):
        np.testing.assert_array_equal(one, other)


@pytest.fixture(scope="module")
def several(tmp_path_factory):
    """A clip with its flow at two gaps."""
    root = tmp_path_factory.mktemp("gaps")
    clip_writer.write_clip(root / "frames" / "dog", COUNT)
    config = clip_writer.config(root / "frames")
    config.flow.gaps = (1, 2)
    (clip,) = clips.find_clips(config.data)
    flow.run(config, (clip,), root / "flow")
    return clip, flow.flow_folder(config, root / "flow")


def test_gaps_are_weighed_by_how_far_things_move(several, network):
    clip, folder = several
    alone = [
        list(motion_evidence._at_gap(network, folder, clip, gap, 0, COUNT))
        for gap in (1, 2)
    ]
    both = list(motion_evidence.of_clip(network, folder, clip, (2, 1)))
    for near, wide, found in zip(*alone, both, strict=True):
        shares = motion_evidence.weigh([near[1], wide[1]])
        expected = shares[0] * near[0] + shares[1] * wide[0]
        expected = cv2.resize(expected, clip.size[::-1]).astype(np.float32)
        np.testing.assert_allclose(found, expected, atol=1e-6)


def test_a_gap_longer_than_a_shot_is_left_out(several, network):
    clip, folder = several
    cut = dataclasses.replace(clip, cuts=(2,))
    both = list(motion_evidence.of_clip(network, folder, cut, (1, 2)))
    near = list(motion_evidence.of_clip(network, folder, cut, (1,)))
    np.testing.assert_array_equal(both[:2], near[:2])
    assert not np.array_equal(both[2:], near[2:])


def test_slow_things_are_believed_at_wide_gaps_and_fast_ones_at_the_narrowest():
    slow, fast = ([speed * gap for gap in (1, 2, 4)] for speed in (0.7, 9.0))
    assert motion_evidence.weigh(slow).argmax() == 2
    assert motion_evidence.weigh(fast)[0] > 0.9
    for scales in (slow, fast, [0.3, 0.3, 0.3], [90.0, 200.0, 400.0], [2.0]):
        found = motion_evidence.weigh(scales)
        assert found.sum() == pytest.approx(1)
        assert (found >= 0).all()


def test_masks_are_steadied_shot_by_shot(setup):
    clip, folder = setup
    assert COUNT == 9
    cut = dataclasses.replace(clip, cuts=(4, 8))  # shots of 4, 4 and 1 frames
    levels = [0.2] * 4 + [0.6] * 4 + [1.0]
    frames = [np.full(clip.size, level, np.float32) for level in levels]
    found = list(motion_evidence.steadied(folder, cut, 1, iter(frames), 0.9))
    assert [one.shape for one in found] == [clip.size] * COUNT
    # What is alike within each shot stays: nothing is heard across a cut.
    np.testing.assert_allclose([one.mean() for one in found], levels, rtol=1e-5)
    mixed = list(motion_evidence.steadied(folder, clip, 1, iter(frames), 0.9))
    assert mixed[3].mean() > 0.25
    with pytest.raises(ValueError, match="zip"):
        list(motion_evidence.steadied(folder, clip, 1, iter(frames[:-1]), 0.9))
