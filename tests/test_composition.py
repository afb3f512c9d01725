"""Closed forms and properties of equations 1-5."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from imas_jax import composition

B, H, W, C = 2, 6, 8, 4


def identity(x):
    return x


def random_masks(seed=0, channels=C):
    logits = np.random.default_rng(seed).normal(size=(B, H, W, channels))
    return jax.nn.softmax(jnp.asarray(2 * logits, jnp.float32))


def hard_masks():
    """Return two channels: the left half and the right half."""
    left = np.zeros((B, H, W, 1), np.float32)
    left[:, :, : W // 2] = 1
    return jnp.asarray(np.concatenate([left, 1 - left], axis=-1))


def random_flow(seed=1):
    flow = np.random.default_rng(seed).normal(size=(B, H, W, 2))
    return jnp.asarray(5 * flow, jnp.float32)


def constant_path(flow, masks):
    return composition.piecewise_constant(flow, masks, identity, identity)


@pytest.mark.parametrize("seed", range(3))
def test_uniform_flow_is_reproduced_by_any_masks(seed):
    flow = np.broadcast_to(np.float32([3.0, -1.5]), (B, H, W, 2))
    path, vectors = constant_path(jnp.asarray(flow), random_masks(seed))
    np.testing.assert_allclose(path, flow, rtol=1e-5)
    np.testing.assert_allclose(vectors, flow[:, 0, :C], rtol=1e-5)


def test_flow_constant_on_hard_masks_is_reproduced_exactly():
    masks = hard_masks()
    flow = masks @ jnp.asarray([[4.0, 1.0], [-2.0, 0.5]])
    path, vectors = constant_path(flow, masks)
    np.testing.assert_allclose(path, flow, rtol=1e-6)
    np.testing.assert_allclose(vectors[0], [[4.0, 1.0], [-2.0, 0.5]], rtol=1e-6)


def test_hard_masks_pool_the_plain_mean():
    flow, masks = random_flow(), hard_masks()
    pooled = composition.pool_by_mask(flow, masks)
    np.testing.assert_allclose(
        pooled[:, 0], flow[:, :, : W // 2].mean(axis=(1, 2)), rtol=1e-5
    )


def test_permuting_channels_permutes_nothing_else():
    flow, masks = random_flow(), random_masks()
    order = jnp.asarray([2, 0, 3, 1])
    path, vectors = constant_path(flow, masks)
    path_2, vectors_2 = constant_path(flow, masks[..., order])
    np.testing.assert_allclose(path, path_2, atol=1e-5)
    np.testing.assert_allclose(vectors[:, order], vectors_2, rtol=1e-5)
    affine = composition.affine_residual(flow, masks)
    affine_2 = composition.affine_residual(flow, masks[..., order])
    np.testing.assert_allclose(affine, affine_2, atol=1e-4)


@pytest.mark.parametrize("function", [constant_path, composition.affine_residual])
def test_an_empty_channel_gives_neither_nan_nor_flow_nor_bad_gradients(function):
    masks = jnp.concatenate([hard_masks(), jnp.zeros((B, H, W, 1))], axis=-1)
    flow = random_flow()
    with_empty, without = function(flow, masks), function(flow, hard_masks())
    first, second = jax.tree.leaves(with_empty)[0], jax.tree.leaves(without)[0]
    np.testing.assert_allclose(first, second, atol=1e-4)
    grad = jax.grad(lambda m: jnp.square(jax.tree.leaves(function(flow, m))[0]).sum())
    assert np.isfinite(grad(masks)).all()


def test_head_channels_are_read_component_by_component():
    maps = jnp.arange(2.0 * C).reshape(1, 1, 1, 2 * C)
    got = composition.split_channels(maps, 2)[0, 0, 0]
    np.testing.assert_array_equal(got, [[0, 4], [1, 5], [2, 6], [3, 7]])


def test_the_residual_never_exceeds_its_bound():
    maps = 1e4 * jax.random.normal(jax.random.key(0), (B, H, W, 2 * C))
    residual = composition.bounded_residual(maps, 10.0, 10.0)
    assert np.abs(residual).max() == pytest.approx(10.0)
    total = composition.compose(random_masks(), residual)
    assert np.abs(total).max() <= 10.0 + 1e-5


def test_a_small_residual_is_scaled_by_bound_over_divisor():
    maps = jnp.full((1, 1, 1, 2), 1e-3)
    residual = composition.bounded_residual(maps, 5.0, 2.0)
    np.testing.assert_allclose(residual, 2.5e-3, rtol=1e-5)


def test_a_negative_bound_leaves_the_residual_as_it_is():
    maps = 100 * jax.random.normal(jax.random.key(0), (B, H, W, 2 * C))
    residual = composition.bounded_residual(maps, -1.0, 10.0)
    np.testing.assert_array_equal(residual, composition.split_channels(maps, 2))


def test_scaling_doubles_or_removes_a_channels_vector_at_most():
    vectors = jnp.asarray([[[2.0, -4.0]]])
    large = composition.scaling_residual(jnp.full((1, 1, 1, 2), 1e6), vectors, 10.0)
    small = composition.scaling_residual(jnp.full((1, 1, 1, 2), -1e6), vectors, 10.0)
    np.testing.assert_allclose(large[0, 0, 0, 0], [2.0, -4.0])
    np.testing.assert_allclose(small[0, 0, 0, 0], [-2.0, 4.0])
    none = composition.scaling_residual(jnp.zeros((1, 1, 1, 2)), vectors, 10.0)
    np.testing.assert_array_equal(none, jnp.zeros((1, 1, 1, 1, 2)))


def affine_flow(matrix, offset):
    y, x = np.mgrid[:H, :W].astype(np.float32)
    return np.stack([x, y], axis=-1) @ np.float32(matrix).T + np.float32(offset)


def test_an_affine_motion_in_each_mask_is_explained_without_remainder():
    masks = hard_masks()
    left = affine_flow([[0.1, -0.2], [0.2, 0.1]], [3.0, 1.0])
    right = affine_flow([[-0.3, 0.0], [0.0, 0.4]], [-2.0, 0.0])
    flow = masks[..., :1] * left[None] + masks[..., 1:] * right[None]
    path, _ = constant_path(flow, masks)
    total = path + composition.affine_residual(flow, masks)
    np.testing.assert_allclose(total, flow, atol=1e-4)


def test_an_affine_residual_has_no_mean_over_its_mask():
    flow, masks = random_flow(), hard_masks()
    residual = composition.affine_residual(flow, masks)
    pooled = composition.pool_by_mask(residual, masks)
    np.testing.assert_allclose(pooled, 0.0, atol=1e-4)


def test_a_channel_of_one_pixel_or_one_line_has_no_affine_motion():
    flow = random_flow()
    dot = jnp.zeros((B, H, W, 1)).at[:, 2, 3].set(1.0)
    line = jnp.zeros((B, H, W, 1)).at[:, 2].set(1.0)
    for mask in (dot, line):
        residual = composition.affine_residual(flow, mask)
        np.testing.assert_allclose(residual, 0.0, atol=1e-5)


def test_clamping_keeps_what_is_inside_and_zero_turns_it_off():
    flow = jnp.asarray([[-30.0, 5.0], [19.0, 21.0]])
    np.testing.assert_array_equal(
        composition.clamp_flow(flow, 20.0), [[-20.0, 5.0], [19.0, 20.0]]
    )
    np.testing.assert_array_equal(composition.clamp_flow(flow, 0.0), flow)


@pytest.mark.parametrize("pathway", ["residual", "scaling", "affine"])
def test_gradients_agree_with_finite_differences(pathway):
    with jax.enable_x64(True):
        rng = np.random.default_rng(3)
        flow, logits, maps = (
            jnp.asarray(rng.normal(size=(1, 4, 5, k))) for k in (2, 3, 6)
        )
        flow = 4 * flow
        direction = [rng.normal(size=array.shape) for array in (logits, maps)]

        def total(logits, maps):
            masks = jax.nn.softmax(logits)
            path, vectors = constant_path(flow, masks)
            if pathway == "affine":
                return jnp.square(path + composition.affine_residual(flow, masks)).sum()
            flows = (
                composition.bounded_residual(maps, 2.0, 3.0)
                if pathway == "residual"
                else composition.scaling_residual(maps, vectors, 3.0)
            )
            return jnp.square(path + composition.compose(masks, flows)).sum()

        grads = jax.jit(jax.grad(total, argnums=(0, 1)))(logits, maps)
        slope = sum((g * d).sum() for g, d in zip(grads, direction, strict=True))
        moved = jax.jit(
            lambda s: total(logits + s * direction[0], maps + s * direction[1])
        )
        difference = (moved(1e-5) - moved(-1e-5)) / 2e-5
        np.testing.assert_allclose(slope, difference, rtol=1e-6)


def test_a_held_first_channel_explains_no_motion_and_others_are_untouched():
    vectors = jnp.asarray([[[1.0, 2.0], [3.0, -4.0], [0.5, 0.0]]])
    held = composition.hold_first(vectors)
    np.testing.assert_array_equal(held[0, 0], [0.0, 0.0])
    np.testing.assert_array_equal(held[0, 1:], vectors[0, 1:])
