import jax
import jax.numpy as jnp
import numpy as np
import pytest

from imas_jax import geometry


def random(shape, seed=0):
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


@pytest.mark.parametrize("corners", ["half_pixel", "align_corners"])
@pytest.mark.parametrize("size_out", [1, 3, 7, 20])
def test_rows_of_the_resize_matrix_are_averages(corners, size_out):
    matrix = geometry.resize_matrix(7, size_out, corners)
    np.testing.assert_allclose(matrix.sum(axis=1), 1.0)
    assert matrix.min() >= 0.0
    assert np.count_nonzero(matrix, axis=1).max() <= 2  # no antialias


def test_resizing_to_the_same_size_changes_nothing():
    image = jnp.asarray(random((2, 5, 6, 3)))
    assert geometry.resize(image, (5, 6)) is image


def test_a_ramp_stays_a_ramp_between_its_outer_pixels():
    ramp = jnp.arange(8.0).reshape(1, 8, 1)
    doubled = np.asarray(geometry.resize(ramp, (1, 16)))[0, :, 0]
    np.testing.assert_allclose(np.diff(doubled[1:-1]), 0.5, rtol=1e-6)
    aligned = geometry.resize(ramp, (1, 15), "align_corners")[0, :, 0]
    np.testing.assert_allclose(aligned, np.arange(15) / 2, rtol=1e-6)


def test_halving_averages_pairs_with_half_pixel_centres():
    image = random((1, 6, 8, 2))
    halved = geometry.resize(jnp.asarray(image), (3, 4))
    expected = image.reshape(1, 3, 2, 4, 2, 2).mean(axis=(2, 4))
    np.testing.assert_allclose(halved, expected, atol=1e-6)


def test_squares_are_averaged_and_what_is_left_over_is_left_out():
    maps = jnp.arange(15.0).reshape(1, 3, 5, 1)
    halved = geometry.halve(maps)
    np.testing.assert_allclose(halved[0, ..., 0], [[3.0, 5.0]])


def test_sampling_at_pixels_reads_them_and_beyond_the_border_repeats_the_edge():
    image = jnp.asarray(random((4, 5, 2)))
    grid = geometry.pixel_grid(4, 5)
    np.testing.assert_allclose(geometry.sample_bilinear(image, grid), image, atol=1e-6)
    far = geometry.sample_bilinear(image, jnp.asarray([[-9.0, -9.0], [99.0, 99.0]]))
    np.testing.assert_allclose(far, [image[0, 0], image[3, 4]], atol=1e-6)


def test_warping_by_a_shift_moves_the_image_back():
    frame = random((6, 9, 1))
    moved = np.roll(frame, (1, 2), axis=(0, 1))
    flow = np.broadcast_to(np.float32([2.0, 1.0]), (6, 9, 2))
    back = geometry.warp(jnp.asarray(moved), jnp.asarray(flow))
    np.testing.assert_allclose(back[:-1, :-2], frame[:-1, :-2], atol=1e-6)


def test_gradients_of_resizing_agree_with_its_matrix():
    image = jnp.asarray(random((1, 4, 1)))
    weights = jnp.asarray(random((1, 7, 1), seed=1))
    grad = jax.grad(lambda x: (geometry.resize(x, (1, 7)) * weights).sum())(image)
    expected = geometry.resize_matrix(4, 7).T @ np.asarray(weights)[0, :, 0]
    np.testing.assert_allclose(grad[0, :, 0], expected, rtol=1e-5)
