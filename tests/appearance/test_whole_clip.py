"""Masks of a clip agree along the flow and in colour."""

import numpy as np
import pytest

from imas_jax.appearance import whole_clip
from imas_jax.appearance.whole_clip import ClipFlow, WholeClip
from imas_jax.errors import UserError


@pytest.fixture
def clip():
    """A red square that moves 2 px right a frame over green ground; exact flow."""
    t, h, w = 6, 24, 40
    truth = np.zeros((t, h, w), bool)
    flow = np.zeros((t - 1, 2, h, w, 2), np.float32)
    for i in range(t):
        truth[i, 8:16, 6 + 2 * i : 16 + 2 * i] = True
    for i in range(t - 1):
        flow[i, 0, truth[i], 0] = 2
        flow[i, 1, truth[i + 1], 0] = -2
    frames = np.where(truth[..., None], [200, 30, 30], [30, 120, 30]).astype(np.uint8)
    return truth, frames, ClipFlow(flow[:, 0], flow[:, 1])


def test_a_mask_that_flickers_is_mended_by_its_neighbours(clip):
    truth, _, flow = clip
    masks = np.where(truth, 0.9, 0.1).astype(np.float32)
    masks[3] = 0.1
    mended = whole_clip.smooth_along_flow(masks, flow, WholeClip())
    assert (mended[3][truth[3]] > 0.5).all()
    ground = ~truth[3] & ~truth[2] & ~truth[4]
    np.testing.assert_allclose(mended[3][ground], 0.1, atol=1e-3)


def test_masks_that_agree_along_the_flow_stay(clip):
    truth, _, flow = clip
    masks = np.where(truth, 0.8, 0.2).astype(np.float32)
    inner = truth.copy()
    inner[:, :, 1:-1] = truth[:, :, :-2] & truth[:, :, 2:]
    smooth = whole_clip.smooth_along_flow(masks, flow, WholeClip())
    np.testing.assert_allclose(smooth[inner], 0.8, atol=1e-5)


def test_where_flows_disagree_each_mask_keeps_its_opinion(clip):
    truth, _, flow = clip
    masks = np.where(truth, 0.9, 0.1).astype(np.float32)
    masks[3] = 0.1
    wrong = ClipFlow(flow.forward + 5, flow.backward + 5)
    smooth = whole_clip.smooth_along_flow(masks, wrong, WholeClip())
    np.testing.assert_allclose(smooth, masks, atol=1e-3)


def test_colours_of_the_clip_complete_a_mask_that_misses_a_part(clip):
    truth, frames, _ = clip
    masks = np.where(truth, 0.9, 0.1).astype(np.float32)
    masks[2, :, :14] = 0.1
    masks[4, 18:22, 4:30] = 0.6  # and one that spills onto the ground
    found = whole_clip.agree_in_colour(masks, frames, WholeClip(blur=0.0))
    np.testing.assert_array_equal(found > 0.5, truth)


def test_colour_of_weight_zero_changes_nothing(clip):
    _, frames, _ = clip
    masks = np.random.default_rng(0).uniform(size=frames.shape[:3]).astype(np.float32)
    same = whole_clip.agree_in_colour(masks, frames, WholeClip(colour=0.0))
    np.testing.assert_array_equal(same, masks)


@pytest.mark.parametrize("value", [0.0, 1.0])
def test_empty_and_full_masks_stay(clip, value):
    _, frames, flow = clip
    masks = np.full(frames.shape[:3], value, np.float32)
    same = whole_clip.refine_clip(masks, frames, flow, WholeClip())
    np.testing.assert_allclose(same, masks, atol=1e-6)


def test_two_frames_are_enough(clip):
    truth, frames, flow = clip
    two = ClipFlow(flow.forward[:1], flow.backward[:1])
    masks = np.where(truth[:2], 0.7, 0.3).astype(np.float32)
    found = whole_clip.refine_clip(masks, frames[:2], two, WholeClip(blur=0.0))
    np.testing.assert_array_equal(found > 0.5, truth[:2])


def test_flow_of_the_frame_is_scaled_to_the_grid():
    flow = np.full((60, 80, 2), [8.0, 4.0], np.float16)
    small = whole_clip.to_grid(flow, (30, 20), (120, 160))
    assert small.shape == (30, 20, 2)
    np.testing.assert_allclose(small, np.broadcast_to([1.0, 1.0], (30, 20, 2)))


def test_settings_are_read_from_one_field():
    assert whole_clip.get_settings("off") is None
    assert whole_clip.get_settings("on") == WholeClip()
    assert whole_clip.get_settings("on:passes=2,colour=1.5") == WholeClip(
        passes=2, colour=1.5
    )


@pytest.mark.parametrize("text", ["yes", "on:speed=3", "on:pull=1", "on:passes=x"])
def test_unreadable_settings_are_refused(text):
    with pytest.raises(UserError, match="whole_clip"):
        whole_clip.get_settings(text)
