"""Both ways to correlate against a plain NumPy reading of the paper's Sec. 3.2."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from imas_jax.flow import raft_correlation

METHODS = ("volume", "on_demand")


@functools.partial(jax.jit, static_argnums=(3, 4))
def correlate(features0, features1, position, radius, method):
    built = raft_correlation.build(features0, features1, radius, method)
    return raft_correlation.read(built, position)


def oracle(features0, features1, position, radius):
    """Pool the volume, read each point of each window bilinearly, zero outside."""
    h, w, d = features0.shape
    volume = np.einsum("hwd,yxd->hwyx", features0, features1) / np.sqrt(d)
    steps = np.arange(-radius, radius + 1)
    out = []
    for level in range(4):
        hl, wl = volume.shape[2:]
        window = np.zeros((h, w, len(steps), len(steps)))
        for i, j in np.ndindex(h, w):
            x = position[i, j, 0] / 2**level + steps
            y = position[i, j, 1] / 2**level + steps
            rows = np.maximum(0, 1 - np.abs(y[:, None] - np.arange(hl)))
            cols = np.maximum(0, 1 - np.abs(x[:, None] - np.arange(wl)))
            window[i, j] = (rows @ volume[i, j] @ cols.T).T  # x first
        out.append(window.reshape(h, w, -1))
        even = volume[:, :, : hl // 2 * 2, : wl // 2 * 2]
        volume = even.reshape(h, w, hl // 2, 2, wl // 2, 2).mean(axis=(3, 5))
    return np.concatenate(out, axis=-1)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("size", [(7, 10), (2, 3), (8, 8)])
def test_windows_are_read_bilinearly_with_zeros_outside(method, size):
    rng = np.random.default_rng(1)
    features = rng.normal(size=(2, 2, *size, 5)).astype(np.float32)
    position = rng.uniform(-4, 14, (2, *size, 2)).astype(np.float32)
    position[0, 0, 0] = (-1000, 3)
    position[0, 0, 1] = (2, 1e6)
    position[1, 1, 1] = (1, 1)  # on a pixel
    found = correlate(*features, position, 2, method)
    assert found.shape == (2, *size, 4 * 25)
    for b in (0, 1):
        expected = oracle(features[0, b], features[1, b], position[b], 2)
        np.testing.assert_allclose(found[b], expected, atol=2e-5)
    assert np.abs(found[:, 1]).max() > 0.5
    assert not np.asarray(found[0, 0, :2]).any(), "far outside all is zero"


def test_features_on_demand_need_a_fraction_of_the_volumes_memory():
    features = jax.ShapeDtypeStruct((1, 60, 107, 128), np.float32)
    sizes = {}
    for method in METHODS:

        def levels(features, method=method):
            return raft_correlation.build(features, features, 3, method).levels

        built = jax.eval_shape(levels, features)
        sizes[method] = sum(4 * level.size for level in built)
    assert sizes["volume"] == raft_correlation.volume_bytes(60, 107, 3)
    assert sizes["on_demand"] < sizes["volume"] / 20


@pytest.mark.parametrize(("h", "w"), [(1, 1), (2, 5), (7, 3)])
def test_halving_drops_an_odd_last_row_and_column(h, w):
    features = jnp.arange(h * w, dtype=float).reshape(1, h, w, 1)
    halved = raft_correlation.halve(features)
    assert halved.shape == (1, h // 2, w // 2, 1)
    if h > 1:
        expected = features[0, :2, :2].mean()
        np.testing.assert_allclose(halved[0, 0, 0, 0], expected)
