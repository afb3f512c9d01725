"""Features without weights: they tell an object from its surroundings."""

import numpy as np
import pytest

from imas_jax.appearance import alignment, local_features


@pytest.fixture(scope="module")
def scene():
    """An object of other colour and texture on a noisy background."""
    rng = np.random.default_rng(0)
    frame = rng.integers(60, 100, (120, 160, 3)).astype(np.uint8)
    where = np.zeros((120, 160), bool)
    where[30:80, 50:110] = True
    stripes = np.where(np.arange(160) % 8 < 4, 210, 120)
    frame[where] = np.broadcast_to(stripes[:, None], (120, 160, 3))[where]
    frame[where, 2] = 30
    return frame, where


@pytest.mark.parametrize("name", list(local_features.LOCAL))
def test_the_object_scores_above_its_surroundings_and_a_part(scene, name):
    frame, where = scene
    labels = np.where(where, 1, 0)
    labels[where & (np.arange(160) < 70)] = 2
    soft = np.eye(3, dtype=np.float32)[labels]
    candidates = ((0,), (1, 2), (2,))
    masks = alignment.candidate_masks(soft, candidates)
    features = local_features.LOCAL[name](frame)
    scores = alignment.judge_by_features(masks, features, threshold=0.5)
    assert scores.values.argmax() == 1
    assert scores.values[1] > 0.5


@pytest.mark.parametrize("name", list(local_features.LOCAL))
def test_features_are_standardised_and_the_same_each_time(scene, name):
    frame, _ = scene
    features = local_features.LOCAL[name](frame)
    assert features.dtype == np.float32
    assert np.isfinite(features).all()
    np.testing.assert_allclose(features.mean(axis=(0, 1)), 0, atol=1e-4)
    np.testing.assert_array_equal(features, local_features.LOCAL[name](frame))


@pytest.mark.parametrize("name", list(local_features.LOCAL))
def test_a_frame_of_one_colour_gives_zeros_not_nan(name):
    frame = np.full((64, 48, 3), 128, np.uint8)
    features = local_features.LOCAL[name](frame)
    np.testing.assert_allclose(features, 0, atol=1e-2)


@pytest.mark.parametrize("name", list(local_features.LOCAL))
@pytest.mark.parametrize("size", [(480, 854), (97, 131), (17, 16)])
def test_sides_need_not_be_multiples_of_the_stride(name, size):
    # DAVIS's own width is none of 4, and OpenCV shrinks more than four channels at once
    # only by whole factors.
    frame = np.random.default_rng(0).integers(0, 256, (*size, 3)).astype(np.uint8)
    h, w, _ = local_features.LOCAL[name](frame).shape
    assert 0 < h <= size[0] // 2
    assert abs(h * size[1] - w * size[0]) <= 8 * max(size)  # by a grid step at most


def test_shares_are_of_area_though_the_grid_does_not_fit():
    index = np.zeros((40, 54), int)  # 54 = 13 steps of 4 2/13 pixels
    index[:, 27:] = 2
    shares = local_features.local_shares(index, 3)
    assert shares.shape == (10, 13, 3)
    np.testing.assert_allclose(shares.sum(-1), 1, atol=1e-6)
    assert not shares[..., 1].any()
    # The middle step is half of either; an even window has it and the one before it.
    np.testing.assert_allclose(shares[0, 5:9, 2], [0, 0.25, 0.75, 1], atol=1e-6)
