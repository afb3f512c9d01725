import jax
import jax.numpy as jnp
import numpy as np
import pytest

from imas_jax import geometry
from imas_jax.conventions import Features
from imas_jax.models import layers


def random(shape, seed=0):
    values = np.random.default_rng(seed).normal(size=shape)
    return jnp.asarray(values, jnp.float32)


def naive_convolution(x, kernel, stride, dilation):
    """Sum over taps, one output pixel at a time, zeros outside."""
    _, h, w, _ = x.shape
    side = kernel.shape[0]
    pad = dilation * (side // 2)
    padded = np.pad(x, ((0, 0), (pad, pad), (pad, pad), (0, 0)))
    rows = range(0, h + 2 * pad - dilation * (side - 1), stride)
    columns = range(0, w + 2 * pad - dilation * (side - 1), stride)
    out = np.zeros((x.shape[0], len(rows), len(columns), kernel.shape[-1]))
    for i, top in enumerate(rows):
        for j, left in enumerate(columns):
            bottom, right = top + dilation * side, left + dilation * side
            patch = padded[:, top:bottom:dilation, left:right:dilation]
            out[:, i, j] = np.einsum("bhwk,hwkd->bd", patch, kernel)
    return out


@pytest.mark.parametrize(
    ("kernel", "stride", "dilation"), [(3, 1, 1), (3, 2, 1), (3, 1, 2), (1, 2, 1)]
)
def test_convolution_is_the_sum_over_its_taps(kernel, stride, dilation):
    x, weights = random((2, 7, 6, 3)), random((kernel, kernel, 3, 5), seed=1)
    conv = layers.Conv(5, kernel, stride=stride, dilation=dilation, bias=True)
    bias = random((5,), seed=2)
    got = conv.apply({"params": {"kernel": weights, "bias": bias}}, x)
    expected = naive_convolution(np.asarray(x), np.asarray(weights), stride, dilation)
    np.testing.assert_allclose(got, expected + np.asarray(bias), atol=1e-4)


@pytest.mark.parametrize("merging", [True, False])
@pytest.mark.parametrize("dilation", [0, 1, 3])
@pytest.mark.parametrize("channels", [3, 8])  # convolved after and before resizing
def test_merging_is_resizing_appending_and_convolving(channels, dilation, merging):
    assert 3 < 2 * layers.MANY <= 8
    deep = random((2, 4, 5, channels))
    shallow = random((2, 7, 10, 2), seed=1) if merging else None
    side = 3 if dilation else 1
    kernel = random((side, side, channels + 2 * merging, 2), seed=2)
    conv = layers.MergingConv(2, dilation)
    got = conv.apply({"params": {"kernel": kernel}}, Features(shallow, deep))
    x = deep
    if merging:
        x = jnp.concatenate([shallow, geometry.resize(deep, (7, 10))], axis=-1)
    spacing = max(dilation, 1)  # of a single tap: none
    expected = naive_convolution(np.asarray(x), np.asarray(kernel), 1, spacing)
    np.testing.assert_allclose(got, expected, atol=1e-4)


def test_batch_norm_normalises_and_keeps_unbiased_statistics():
    x = 3 * random((4, 5, 6, 2)) + 7
    variables = {
        "params": {"scale": jnp.asarray([2.0, 1.0]), "bias": jnp.asarray([0.0, 5.0])},
        "batch_stats": {"mean": jnp.ones(2), "var": jnp.full(2, 4.0)},
    }
    y, updated = layers.BatchNorm().apply(variables, x, True, mutable=["batch_stats"])
    np.testing.assert_allclose(y.mean(axis=(0, 1, 2)), [0.0, 5.0], atol=1e-4)
    np.testing.assert_allclose(y.std(axis=(0, 1, 2)), [2.0, 1.0], rtol=1e-4)
    pixels = np.asarray(x).reshape(-1, 2)
    stats = updated["batch_stats"]
    np.testing.assert_allclose(stats["mean"], 0.9 + 0.1 * pixels.mean(0), rtol=1e-5)
    np.testing.assert_allclose(
        stats["var"], 0.9 * 4 + 0.1 * pixels.var(0, ddof=1), rtol=1e-5
    )


def test_batch_norm_uses_running_statistics_outside_training():
    x = random((1, 2, 2, 1))
    variables = {
        "params": {"scale": jnp.ones(1), "bias": jnp.zeros(1)},
        "batch_stats": {"mean": jnp.full(1, 0.5), "var": jnp.full(1, 4.0)},
    }
    y = layers.BatchNorm().apply(variables, x, False)
    np.testing.assert_allclose(y, (x - 0.5) / np.sqrt(4.0 + 1e-5), rtol=1e-5)


def test_torchs_default_initialisation_has_its_bounds():
    shape, fan_in = (3, 3, 16, 64), 9 * 16
    kernel = layers.uniform_fan_in(jax.random.key(0), shape)
    bias = layers.uniform_bias(fan_in)(jax.random.key(1), (500,))
    for values in (kernel, bias):
        assert np.abs(values).max() <= fan_in**-0.5
        assert np.abs(values).max() > 0.97 * fan_in**-0.5


def test_he_initialisation_has_the_variance_of_its_fan_out():
    kernel = layers.he_fan_out(jax.random.key(0), (3, 3, 32, 64))
    assert np.var(kernel) == pytest.approx(2 / (9 * 64), rel=0.05)


def test_batch_norm_in_bfloat16_keeps_small_deviations_beside_a_large_mean():
    norm = layers.BatchNorm()
    x = 100 + jax.random.normal(jax.random.key(0), (2, 8, 8, 4))
    x = x.astype(jnp.bfloat16)
    variables = norm.init(jax.random.key(1), x, train=True)

    def normalize(x):
        return norm.apply(variables, x, train=True, mutable=["batch_stats"])[0]

    rounded = normalize(x)
    assert rounded.dtype == jnp.bfloat16
    exact = normalize(x.astype(jnp.float32))
    # Only the result is rounded, to 8 bits.
    error = jnp.abs(rounded.astype(jnp.float32) - exact)
    assert (error <= 2**-8 * jnp.abs(exact) + 1e-6).all()
