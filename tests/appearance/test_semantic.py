"""Semantic constraint: closed forms and edge cases of equations 10-13."""

import numpy as np
import pytest

from imas_jax.appearance import semantic


@pytest.fixture
def two_kinds():
    """Features of an object (first axis) on a background (second axis)."""
    where = np.zeros((20, 30), bool)
    where[6:12, 8:18] = True
    features = np.zeros((20, 30, 3), np.float32)
    features[where, 0] = 2.0
    features[~where, 1] = 5.0
    return features, where


def test_pooling_is_the_mean_under_the_mask(two_kinds):
    features, where = two_kinds
    masks = np.stack([where, ~where, np.zeros_like(where)], -1).astype(np.float32)
    pooled = semantic.pool(features, masks)
    np.testing.assert_allclose(pooled, [[2, 0, 0], [0, 5, 0], [0, 0, 0]])


def test_similarity_ignores_length_and_survives_zero_features():
    features = np.array([[[3.0, 4.0], [0.0, 0.0], [-30.0, -40.0]]])
    got = semantic.similarity(features, np.array([[0.3, 0.4], [0.0, 0.0]]))
    np.testing.assert_allclose(got[0], [[1, 0], [0, 0], [-1, 0]])


def test_a_sloppy_mask_matches_the_whole_object(two_kinds):
    features, where = two_kinds
    mask = np.zeros_like(where)
    mask[7:11, 9:19] = True
    similar = semantic.mask_similarity(features, mask[..., None].astype(np.float32))
    np.testing.assert_array_equal(similar[..., 0] > 0.5, where)


def test_features_may_be_coarser_than_masks(two_kinds):
    features, where = two_kinds
    large = where.repeat(4, 0).repeat(4, 1)
    masks = np.stack([large, ~large], -1).astype(np.float32)
    matches = semantic.mask_similarity(features, masks) > 0.5
    assert matches.shape == masks.shape
    assert semantic.overlap(matches[..., 0], large) > 0.9


def test_a_single_candidate_keeps_its_axis(two_kinds):
    features, where = two_kinds
    mask = where.repeat(2, 0).repeat(2, 1)[..., None].astype(np.float32)
    assert semantic.mask_similarity(features, mask).shape == (40, 60, 1)


def test_any_number_of_candidates_is_resized_as_each_alone():
    maps = np.random.default_rng(0).random((6, 7, 130), np.float32)
    found = semantic.resize(maps, (12, 10))
    for c in (0, 127, 128, 129):
        alone = semantic.resize(maps[..., c : c + 1], (12, 10))
        np.testing.assert_allclose(found[..., c : c + 1], alone, atol=1e-6)


def test_dilation_grows_by_half_the_square_and_stops_at_the_border():
    match = np.zeros((9, 9), bool)
    match[0, 4] = True
    want = np.zeros((9, 9), bool)
    want[:4, 1:8] = True
    np.testing.assert_array_equal(semantic.dilate(match, 7), want)


def test_the_constraint_removes_what_does_not_match(two_kinds):
    _, where = two_kinds
    mask = where | np.roll(where, 9, axis=1)
    result = semantic.constrain(mask, where, dilation=3)
    assert not result.discarded
    np.testing.assert_array_equal(result.mask, mask & semantic.dilate(where, 3))
    assert result.mask.sum() < mask.sum()


@pytest.mark.parametrize(
    ("height", "width", "discarded"),
    [(90, 80, False), (91, 80, True), (90, 81, True), (0, 0, False)],
)
def test_matches_beyond_the_allowed_extent_are_discarded(height, width, discarded):
    match = np.zeros((100, 100), bool)
    match[:height, :width] = True
    mask = np.eye(100, dtype=bool)
    assert semantic.is_discarded(match) == discarded
    result = semantic.constrain(mask, match, dilation=3)
    assert result.discarded == discarded
    if discarded:
        np.testing.assert_array_equal(result.mask, mask)
        assert semantic.alignment_score(match, match) == 0.0


def test_a_mask_equal_to_its_match_scores_one_and_an_empty_one_zero(two_kinds):
    _, where = two_kinds
    assert semantic.alignment_score(where, where) == 1.0
    empty = np.zeros_like(where)
    assert semantic.alignment_score(empty, empty) == 0.0
