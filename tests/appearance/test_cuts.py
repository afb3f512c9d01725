"""Closed forms of cuts of features; the authors' numbers are in tests/parity."""

import numpy as np
import pytest

from imas_jax.appearance import cuts

WHERE = np.zeros((20, 30), bool)
WHERE[5:15, 8:20] = True
FEATURES = np.dstack([WHERE, ~WHERE]).astype(float)


def test_cutting_out_the_object_costs_less_than_cutting_through_it():
    ties = cuts.affinity(FEATURES, 0.2)
    through = WHERE & (np.arange(30) < 13)
    whole, half = (cuts.cost(ties, m.astype(float)) for m in (WHERE, through))
    assert whole < 1e-3 < half
    assert cuts.cost(ties, np.zeros(WHERE.shape)) == cuts.WORST
    assert cuts.cost(ties, np.ones(WHERE.shape)) == cuts.WORST


def test_a_refined_mask_is_the_object_that_it_had_half_of():
    ties = cuts.affinity(FEATURES, 0.2)
    unsure = np.where(WHERE & (np.arange(30) < 16), 0.9, 0.1)
    refined = cuts.refine(ties, unsure)
    np.testing.assert_array_equal(refined > 0.5, WHERE)
    assert cuts.cost(ties, refined) < cuts.cost(ties, unsure)
    for constant in (np.zeros(WHERE.shape), np.ones(WHERE.shape)):
        np.testing.assert_array_equal(cuts.refine(ties, constant), constant)


def test_features_of_many_places_are_thinned_to_what_can_be_kept():
    seen = cuts.on_grid(np.zeros((240, 427, 2), np.float32))
    assert seen.shape[0] * seen.shape[1] <= cuts.PLACES
    assert cuts.on_grid(FEATURES) is FEATURES


def test_masks_that_differ_too_much_are_not_the_same_object():
    single, cut = WHERE, np.roll(WHERE, 2, 1)
    apart = np.mean(single != cut)
    for limit, dropped in ((0.0, False), (apart + 0.01, False), (apart - 0.01, True)):
        kept = cuts.CutConstraint(np.asarray, "", 0.2, limit).agree(single, cut)
        assert kept.discarded == dropped
        np.testing.assert_array_equal(kept.mask, single if dropped else single & cut)


@pytest.mark.parametrize("size", [(4, 6), (20, 30), (7, 9)])
def test_nearest_takes_whole_pixels_where_torch_does(size):
    rows = np.arange(20.0)[:, None] * 100 + np.arange(30)
    found = cuts.nearest(rows, size)
    wanted = [
        [rows[i * 20 // size[0], j * 30 // size[1]] for j in range(size[1])]
        for i in range(size[0])
    ]
    np.testing.assert_array_equal(found, wanted)
