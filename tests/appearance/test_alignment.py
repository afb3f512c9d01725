"""Choosing the object channel without annotations."""

import json

import numpy as np
import pytest

from imas_jax.appearance import alignment


@pytest.fixture
def moving():
    mask = np.zeros((20, 30), bool)
    mask[5:13, 8:20] = True
    return mask


def soft_masks(labels: np.ndarray, channels: int) -> np.ndarray:
    hot = np.eye(channels)[labels]
    return (0.8 * hot + 0.2 / channels).astype(np.float32)


def frame_scores(*values: float) -> alignment.FrameScores:
    return alignment.FrameScores(np.array(values), np.zeros(len(values), bool))


def test_candidates_are_single_channels_unless_unions_are_asked_for():
    assert alignment.list_candidates(3) == ((0,), (1,), (2,))
    assert alignment.list_candidates(3, 3)[3:] == ((0, 1), (0, 2), (1, 2))
    assert alignment.list_candidates(1, 2) == ((0,),)


@pytest.mark.parametrize("channel", [0, 1, 2])
def test_the_channel_that_moves_is_chosen_wherever_it_is(moving, channel):
    labels = np.where(moving, channel, (channel + 1) % 3)
    labels[15:] = (channel + 2) % 3
    candidates = alignment.list_candidates(3)
    masks = alignment.candidate_masks(soft_masks(labels, 3), candidates)
    scores = alignment.judge_by_motion(masks, moving)
    chosen = alignment.choose("motion", candidates, {"clip": [scores]})
    assert chosen.channels == (channel,)
    assert chosen.scores[channel] == 1.0


def test_an_object_split_over_channels_is_found_as_their_union(moving):
    labels = np.where(moving, 1, 0)
    labels[moving & (np.arange(30) < 14)] = 3
    labels[16:] = 2
    soft = soft_masks(labels, 4)
    for largest, want in ((1, 1), (2, 2)):
        candidates = alignment.list_candidates(4, largest)
        masks = alignment.candidate_masks(soft, candidates)
        scores = alignment.judge_by_motion(masks, moving)
        chosen = alignment.choose("motion", candidates, {"clip": [scores]})
        assert len(chosen.channels) == want
    assert chosen.channels == (1, 3)
    np.testing.assert_array_equal(alignment.object_mask(soft, (1, 3)), moving)
    np.testing.assert_allclose(
        alignment.object_probability(soft, (1, 3)), soft[..., 1] + soft[..., 3]
    )


def test_features_pick_the_mask_that_agrees_with_them(moving):
    features = np.where(moving[..., None], [1.0, 0.0], [0.0, 1.0]).astype(np.float32)
    labels = np.where(moving, 2, 0)
    labels[:, ::2] = np.where(moving, 2, 1)[:, ::2]
    candidates = alignment.list_candidates(3)
    masks = alignment.candidate_masks(soft_masks(labels, 3), candidates)
    scores = alignment.judge_by_features(masks, features, threshold=0.5)
    assert scores.values.argmax() == 2
    assert scores.values[2] > 0.95
    # Both backgrounds match the whole scene: the discard rule.
    np.testing.assert_array_equal(scores.discarded, [True, True, False])
    np.testing.assert_array_equal(scores.values[:2], 0.0)


def test_sequences_count_the_same_whatever_their_length():
    scores = {
        "long": [frame_scores(0.5, 0.4)] * 9,
        "short": [frame_scores(0.1, 0.9)],
    }
    chosen = alignment.choose("motion", ((0,), (1,)), scores)
    np.testing.assert_allclose(chosen.scores, [0.3, 0.65])
    assert chosen.channels == (1,)


def test_the_choice_explains_itself_as_json():
    scores = {"a": [frame_scores(0.25, 0.5, 0.75)]}
    chosen = alignment.choose("motion", ((0,), (1,), (0, 1)), scores)
    told = json.loads(json.dumps(chosen.to_json()))
    assert told["channels"] == [0, 1]
    assert told["sequences"]["a"] == {"0": 0.25, "1": 0.5, "0+1": 0.75}


@pytest.mark.parametrize("inner", [0, 1])
def test_of_the_two_sides_of_a_cut_the_inner_one_is_the_object(moving, inner):
    labels = np.where(moving, inner, 1 - inner)
    soft = soft_masks(labels, 2)
    masks = alignment.CandidateMasks(soft, soft > 0.5)
    features = np.eye(2, dtype=np.float32)[moving.astype(int)]
    same = alignment.judge_by_cut(masks, features, 0.2).values
    assert same[0] == pytest.approx(same[1], abs=1e-6)
    scores = alignment.judge_side_of_cut(masks, features, 0.2)
    chosen = alignment.choose("cut", [(0,), (1,)], {"clip": [scores]})
    assert chosen.channels == (inner,)
    np.testing.assert_allclose(scores.values, same, atol=1e-3)
