"""Closed forms of equations 6 and 8 and of their variants."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from imas_jax import losses


def random(shape, seed=0):
    values = np.random.default_rng(seed).normal(size=shape)
    return jnp.asarray(values, jnp.float32)


def test_motion_loss_is_the_mean_absolute_difference():
    flow, other = random((2, 3, 4, 2)), random((2, 3, 4, 2), seed=1)
    expected = np.abs(np.asarray(flow) - np.asarray(other)).mean()
    assert float(losses.motion_loss(flow, other)) == pytest.approx(expected)


def test_the_squared_motion_loss_is_the_mean_of_squares():
    zero = jnp.zeros((1, 2, 2, 2))
    off = zero.at[0, 0, 0, 0].set(4.0)
    assert float(losses.motion_loss(zero, off, "l2")) == pytest.approx(16 / 8)


def test_motion_loss_of_equal_flows_is_zero_and_of_a_pixel_off_is_one():
    flow = random((1, 3, 4, 2))
    assert float(losses.motion_loss(flow, flow)) == 0.0
    assert float(losses.motion_loss(flow, flow + 1)) == pytest.approx(1.0, rel=1e-5)


def test_robust_loss_counts_large_errors_less():
    zero = jnp.zeros((1, 2, 2, 2))
    for error in (0.5, 8.0):
        value = float(losses.motion_loss(zero, zero + error, kind="robust"))
        assert value == pytest.approx((error + 0.01) ** 0.4, rel=1e-5)
    grads = jax.grad(lambda x: losses.motion_loss(zero, x, kind="robust"))
    assert np.abs(grads(zero + 8.0)).max() < np.abs(grads(zero + 0.5)).max()


def test_appearance_loss_as_printed_is_the_squared_error():
    mask, target = random((2, 3, 4)), random((2, 3, 4), seed=1)
    expected = np.square(np.asarray(mask) - np.asarray(target)).mean()
    assert float(losses.appearance_loss(mask, target)) == pytest.approx(
        expected, rel=1e-6
    )


def test_appearance_loss_weights_what_is_missing_and_what_is_too_much():
    mask = jnp.asarray([[0.0, 1.0, 0.5, 0.5]])
    target = jnp.asarray([[1.0, 0.0, 0.5, 0.5]])
    assert float(losses.appearance_loss(mask, target, 2.0, 1.0)) == pytest.approx(0.75)
    assert float(losses.appearance_loss(mask, target, 1.0, 3.0)) == pytest.approx(1.0)


def test_entropy_is_log_c_of_uniform_masks_and_zero_of_hard_ones():
    uniform = jnp.full((2, 3, 4), 0.25)
    assert float(losses.entropy(uniform)) == pytest.approx(np.log(4), rel=1e-6)
    hard = jax.nn.one_hot(jnp.asarray([[0, 1, 2]]), 4)
    assert float(losses.entropy(hard)) == 0.0
    assert np.isfinite(jax.grad(losses.entropy)(hard)).all()


def test_the_authors_entropy_is_not_zero_of_hard_masks():
    # Their slip: softmax twice. A hard mask costs log(1 + (c - 1) / e).
    hard = jax.nn.one_hot(jnp.asarray([0, 1, 2]), 4)
    expected = np.log(1 + 3 / np.e)
    assert float(losses.entropy_rcf(hard)) == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize("size", [(4, 6), (16, 24)])
def test_values_do_not_depend_on_resolution_or_batch(size):
    flow = jnp.ones((3, *size, 2))
    assert float(losses.motion_loss(flow, 3 * flow)) == pytest.approx(2.0)
    mask = jnp.full((3, *size), 0.25)
    assert float(losses.appearance_loss(mask, 2 * mask)) == pytest.approx(0.0625)


def test_compactness_is_zero_of_a_dot_and_the_variance_of_a_bar():
    dot = jnp.zeros((8, 8)).at[3, 5].set(1.0)
    assert float(losses.compactness(dot)) == pytest.approx(0.0, abs=1e-7)
    bar = jnp.zeros((8, 8)).at[3].set(1.0)
    spread = np.var(np.arange(8) / 8) * 8 / 64
    assert float(losses.compactness(bar)) == pytest.approx(spread, rel=1e-5)
    assert float(losses.compactness(jnp.zeros((8, 8)))) == 0.0
