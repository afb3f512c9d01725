"""Closed forms of RCF's terms that no recipe has."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import rcf_terms


def test_sharpening_teaches_the_mask_and_not_its_target():
    masks = jnp.asarray([[0.6, 0.3, 0.1]])
    grad = jax.grad(rcf_terms.sharpening_rcf)(masks, 0.25)
    sharp = np.array([0.6, 0.3, 0.1]) ** 4
    sharp = sharp / sharp.sum()
    expected = -(sharp - jax.nn.softmax(masks[0])) / 3
    np.testing.assert_allclose(grad[0], expected, rtol=1e-5)


def test_compactness_is_zero_of_a_dot_and_the_variance_of_a_bar():
    dot = jnp.zeros((8, 8)).at[3, 5].set(1.0)
    assert float(rcf_terms.compactness(dot)) == pytest.approx(0.0, abs=1e-7)
    bar = jnp.zeros((8, 8)).at[3].set(1.0)
    spread = np.var(np.arange(8) / 8) * 8 / 64
    assert float(rcf_terms.compactness(bar)) == pytest.approx(spread, rel=1e-5)
    assert float(rcf_terms.compactness(jnp.zeros((8, 8)))) == 0.0


def test_cutting_out_the_object_costs_less_than_cutting_through_it():
    where = np.zeros((20, 30), bool)
    where[5:15, 8:20] = True
    features = np.dstack([where, ~where]).astype(float)
    through = where & (np.arange(30) < 13)
    whole = rcf_terms.normalized_cut(features, where.astype(float))
    half = rcf_terms.normalized_cut(features, through.astype(float))
    assert whole < 1e-3 < half
    assert rcf_terms.normalized_cut(features, np.zeros(where.shape)) == 2.0
