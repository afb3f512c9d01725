import math

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from skimage.morphology import disk

from imas_jax.evaluation import metrics


def plain_boundary(mask: np.ndarray) -> np.ndarray:
    """`seg2bmap` of the official toolkit for equal sizes, transcribed."""
    right, below, corner = (np.zeros_like(mask) for _ in range(3))
    right[:, :-1] = mask[:, 1:]
    below[:-1, :] = mask[1:, :]
    corner[:-1, :-1] = mask[1:, 1:]
    edge = mask ^ right | mask ^ below | mask ^ corner
    edge[-1, :] = mask[-1, :] ^ right[-1, :]
    edge[:, -1] = mask[:, -1] ^ below[:, -1]
    edge[-1, -1] = False
    return edge


def plain_f(prediction: np.ndarray, truth: np.ndarray) -> float:
    """`db_eval_boundary` by definition: distances between all boundary pixels."""
    radius = math.ceil(0.008 * math.hypot(*truth.shape))
    a, b = (np.argwhere(plain_boundary(m)) for m in (prediction, truth))
    if len(a) == 0 or len(b) == 0:
        return float(len(a) == len(b))
    near = ((a[:, None] - b[None]) ** 2).sum(-1) <= radius**2
    precision, recall = near.any(1).mean(), near.any(0).mean()
    if precision + recall == 0:
        return 0.0
    return 2 * precision * recall / (precision + recall)


pairs = hnp.array_shapes(min_dims=2, max_dims=2, min_side=1, max_side=24).flatmap(
    lambda shape: st.tuples(hnp.arrays(bool, shape), hnp.arrays(bool, shape))
)


@given(pairs)
def test_jaccard_counts_pixels(pair):
    a, b = pair
    both, either = sum(a[b]), sum((a | b).ravel())
    assert metrics.jaccard(a, b) == (both / either if either else 1.0)


@given(pairs)
def test_the_boundary_is_the_official_one_at_every_border(pair):
    np.testing.assert_array_equal(metrics.boundary(pair[0]), plain_boundary(pair[0]))


@given(pairs)
def test_f_agrees_with_distances_between_all_boundary_pixels(pair):
    assert metrics.boundary_f(*pair) == pytest.approx(plain_f(*pair), abs=1e-12)


def test_f_of_large_far_apart_and_border_touching_masks():
    truth, prediction = (np.zeros((240, 428), bool) for _ in range(2))
    truth[:80, 300:] = True
    prediction[3:83, 297:] = True
    prediction[200:, :40] = True
    expected = plain_f(prediction, truth)
    assert 0.2 < expected < 0.9
    assert metrics.boundary_f(prediction, truth) == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize("radius", [1, 2, 8, 11, 70])
@pytest.mark.parametrize("shape", [(5, 3), (40, 64), (90, 200)])
def test_widening_is_dilation_by_the_official_disk(radius, shape):
    image = (np.random.default_rng(radius).random(shape) < 0.01).astype(np.uint8)
    image[0, 0] = image[-1, -1] = 1
    both = np.stack([image, image[::-1, ::-1]])
    margin = -(shape[1] + radius) % 64 + radius
    padded = np.pad(both, ((0, 0), (0, 0), (0, margin)))
    packed = metrics._widened(metrics._pack(padded), radius)
    found = np.unpackbits(packed.view(np.uint8), axis=-1, bitorder="little")
    for one, wide in zip(both, found, strict=True):
        expected = cv2.dilate(one, disk(radius).astype(np.uint8))
        np.testing.assert_array_equal(wide[:, : shape[1]], expected)


def test_a_tolerance_in_pixels_may_be_wider_than_a_word():
    truth, far = np.zeros((30, 300), bool), np.zeros((30, 300), bool)
    truth[10:20, 10:20] = far[10:20, 110:120] = True
    assert metrics.boundary_f(far, truth, tolerance=100.0) == 1.0
    assert metrics.boundary_f(far, truth, tolerance=80.0) == 0.0


def test_a_shift_within_the_tolerance_costs_no_boundary_accuracy():
    truth, near, far = (np.zeros((480, 854), bool) for _ in range(3))
    truth[100:200, 100:300] = True
    near[108:208, 100:300] = True
    far[109:209, 100:300] = True
    assert metrics.boundary_f(near, truth) == 1.0
    assert metrics.boundary_f(far, truth) < 1.0


def test_statistics_by_hand():
    values = np.array([0.9, 0.7, 0.5, 0.4, 0.2])
    found = metrics.statistics(values)
    # Quarters of five frames: (1, 2), (2, 3), (3, 4), (4, 5).
    assert found.mean == pytest.approx(0.54)
    assert found.recall == pytest.approx(0.4)
    assert found.decay == pytest.approx(0.8 - 0.3)


def test_statistics_leave_out_frames_that_are_not_scored():
    found = metrics.statistics(np.array([0.8, np.nan, 0.4]))
    assert found.mean == pytest.approx(0.6)
    assert found.recall == pytest.approx(0.5)


@pytest.mark.parametrize("values", [[], [np.nan], [np.nan] * 9])
def test_nothing_scored_is_nan_without_a_warning(values):
    found = metrics.statistics(np.array(values))
    assert math.isnan(found.mean)
    assert math.isnan(found.recall)
    assert math.isnan(found.decay)


def test_more_than_255_frames_do_not_wrap_around():
    values = np.linspace(1, 0, 400)
    assert metrics.statistics(values).decay == pytest.approx(0.75, abs=0.01)


def test_masks_of_other_sizes_or_types_are_refused():
    mask = np.zeros((4, 5), bool)
    # A run-time type checker, where one is on, is quicker: its error is a TypeError.
    with pytest.raises((ValueError, TypeError), match=r"5, ?4"):
        metrics.jaccard(mask, mask.T)
    with pytest.raises((ValueError, TypeError), match=r"uint8|u8"):
        metrics.boundary_f(mask.astype(np.uint8), mask)
