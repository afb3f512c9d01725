"""Layers every network here shares, written for parity and for speed on a CPU."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn
from jaxtyping import Array, Float

from imas_jax import geometry
from imas_jax.conventions import Features

Dtype = Any
Initializer = Callable[..., Array]

# He initialisation with fan-out, as the authors' framework starts backbones.
he_fan_out = nn.initializers.variance_scaling(2.0, "fan_out", "normal")
# torch's default for convolutions, U(+-1/sqrt(fan_in)): the authors' last layers.
uniform_fan_in = nn.initializers.variance_scaling(1 / 3, "fan_in", "uniform")

# From how many times the output's channels on it pays to convolve before resizing.
MANY = 4


def uniform_bias(fan_in: int) -> Initializer:
    """Return torch's default bias initialiser, U(+-1/sqrt(fan_in))."""

    def initialise(key: Array, shape: tuple[int, ...], dtype: Any = float) -> Array:
        limit = fan_in**-0.5
        return jax.random.uniform(key, shape, dtype, -limit, limit)

    return initialise


class Conv(nn.Module):
    """2-D convolution with torch's symmetric padding and an HWIO kernel.

    Attributes:
        features: Output channels.
        kernel: Side of the square kernel.
        stride: Step of both axes.
        dilation: Spacing of the kernel's taps; padding is `dilation * (kernel // 2)`.
        bias: Whether to add a bias.
        dtype: Computation type; parameters stay float32 (or the input's float64).
        precision: Of products on accelerators; None is the backend's default.
    """

    features: int
    kernel: int = 3
    stride: int = 1
    dilation: int = 1
    bias: bool = False
    dtype: Dtype | None = None
    kernel_init: Initializer = he_fan_out
    bias_init: Initializer = nn.initializers.zeros_init()
    precision: jax.lax.Precision | None = None

    @nn.compact
    def __call__(self, x: Float[Array, "b h w k"]) -> Float[Array, "b h2 w2 d"]:
        """Convolve."""
        shape = (self.kernel, self.kernel, x.shape[-1], self.features)
        kernel = self.param("kernel", self.kernel_init, shape)
        dtype = self.dtype or x.dtype
        x, kernel = x.astype(dtype), jnp.asarray(kernel, dtype)
        x = convolve(x, kernel, self.stride, self.dilation, self.precision)
        if self.bias:
            bias = self.param("bias", self.bias_init, (self.features,))
            x = x + bias.astype(dtype)[None, None, None]
        return x


class MergingConv(nn.Module):
    """Convolution of features as a head gets them: many channels in, few out.

    Equal to resizing the deep features to the shallow ones' grid, appending them to the
    shallow ones, and convolving.

    Attributes:
        features: Output channels.
        dilation: Spacing of a 3x3 kernel's taps, pixels of the shallow grid; 0 makes
            the kernel 1x1.
        dtype: Computation type, or None for the input's.
    """

    features: int
    dilation: int = 1
    dtype: Dtype | None = None

    @nn.compact
    def __call__(self, x: Features) -> Float[Array, "b h w d"]:
        """Merge and convolve."""
        dtype = self.dtype or x.deep.dtype
        deep = x.deep.astype(dtype)
        # Without shallow features there are none, on the deep ones' grid.
        shallow = deep[..., :0] if x.merge is None else x.merge.astype(dtype)
        k, size = shallow.shape[-1], (shallow.shape[1], shallow.shape[2])
        taps = taps_of(self.dilation)
        shape = (taps, taps, k + deep.shape[-1], self.features)
        kernel = jnp.asarray(self.param("kernel", he_fan_out, shape), dtype)
        if deep.shape[-1] < MANY * self.features:
            both = jnp.concatenate([shallow, resize(deep, size)], axis=-1)
            return convolve(both, kernel, dilation=self.dilation)
        y = convolve_resized(deep, kernel[:, :, k:], size, self.dilation)
        if k:
            y = y + convolve(shallow, kernel[:, :, :k], dilation=self.dilation)
        return y


def taps_of(dilation: int) -> int:
    """Return the side of a head's kernels: 0 stands for single pixels."""
    return 3 if dilation else 1


def convolve(
    x: Float[Array, "b h w k"],
    kernel: Float[Array, "n n k d"],
    stride: int = 1,
    dilation: int = 1,
    precision: jax.lax.Precision | None = None,
) -> Float[Array, "b h2 w2 d"]:
    """Convolve with torch's symmetric padding; 1x1 is a matrix product.

    XLA on a CPU is slow at the weight gradient of a 1x1 convolution.
    """
    if kernel.shape[0] == 1:
        x = x[:, ::stride, ::stride]
        return jnp.matmul(x, kernel[0, 0], precision=precision)
    pad = dilation * (kernel.shape[0] // 2)
    return jax.lax.conv_general_dilated(
        x,
        kernel,
        window_strides=(stride, stride),
        padding=((pad, pad), (pad, pad)),
        rhs_dilation=(dilation, dilation),
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
        precision=precision,
    )


def convolve_resized(
    x: Float[Array, "b h w k"],
    kernel: Float[Array, "n n k d"],
    size: tuple[int, int],
    dilation: int,
) -> Float[Array, "b h2 w2 d"]:
    """Convolve features as if they had been resized to `size` before.

    Taps mix channels, resizing mixes pixels, so they commute: every tap is applied on
    the coarse grid (at twice the size a quarter of the arithmetic), then its result is
    resized and shifted to its place by one small matrix an axis.
    """
    h, w = x.shape[1:3]
    if kernel.shape[0] == 1:
        return resize(convolve(x, kernel), size)
    rows = jnp.asarray(_tap_matrices(h, size[0], dilation), x.dtype)
    columns = jnp.asarray(_tap_matrices(w, size[1], dilation), x.dtype)
    taps = jnp.einsum("bhwk,yxkd->bhwyxd", x, kernel)
    lines = jnp.einsum("yih,bhwyxd->biwxd", rows, taps)
    return jnp.einsum("xjw,biwxd->bijd", columns, lines)


def _tap_matrices(size_in: int, size_out: int, dilation: int) -> np.ndarray:
    """Return three `(size_out, size_in)` matrices: resize, then read a tap's row.

    What lies beyond the border is zero, as in a padded convolution.
    """
    resized = geometry.resize_matrix(size_in, size_out)
    padded = np.pad(resized, ((dilation, dilation), (0, 0)))
    return np.stack([padded[i * dilation :][:size_out] for i in range(3)])


def resize(
    x: Float[Array, "b h w k"], size: tuple[int, int]
) -> Float[Array, "b h2 w2 k"]:
    """Resize features in full precision, whatever their type."""
    return geometry.resize(wide(x), size).astype(x.dtype)


def wide(x: Array) -> Array:
    """Return float32 (or wider): for means, logits, and what is measured in pixels."""
    return x.astype(jnp.promote_types(x.dtype, jnp.float32))


class ChannelDropout(nn.Module):
    """Zeroes whole channels of whole images in training, and scales what is left.

    What is zeroed depends on an image's place in the global batch only: devices draw
    for all images and take their own part, so their number changes nothing.

    Attributes:
        rate: Probability of zero.
        axis_name: Device axis that shares the batch, or None.
    """

    rate: float
    axis_name: str | None = None

    @nn.compact
    def __call__(
        self, x: Float[Array, "b h w k"], train: bool
    ) -> Float[Array, "b h w k"]:
        """Drop; training wants the same `dropout` key on all devices."""
        if not train or self.rate == 0.0:
            return x
        b, devices, first = x.shape[0], 1, jnp.zeros((), jnp.int32)
        if self.axis_name is not None and not self.is_initializing():
            devices = jax.lax.axis_size(self.axis_name)
            first = jax.lax.axis_index(self.axis_name) * b
        keep, shape = 1.0 - self.rate, (b * devices, 1, 1, x.shape[-1])
        kept = jax.random.bernoulli(self.make_rng("dropout"), keep, shape)
        kept = jax.lax.dynamic_slice_in_dim(kept, first, b)
        return jnp.where(kept, x / keep, jnp.zeros_like(x))


class BatchNorm(nn.Module):
    """Batch normalisation with torch's statistics, synchronised over devices.

    Normalises with the biased variance of the global batch and updates the running
    variance with the unbiased one, momentum 0.1 in torch's sense. Statistics and
    parameters stay in full precision whatever the input's type.

    Attributes:
        axis_name: Device axis to average over, or None.
        scale_init: Initial scale; zeros make a residual block start as identity.
    """

    axis_name: str | None = None
    scale_init: Initializer = nn.initializers.ones_init()
    epsilon: float = 1e-5
    momentum: float = 0.1

    @nn.compact
    def __call__(
        self, x: Float[Array, "b h w k"], train: bool
    ) -> Float[Array, "b h w k"]:
        """Normalise; in training also update the running statistics."""
        k = x.shape[-1]
        mean_ema = self.variable("batch_stats", "mean", jnp.zeros, (k,))
        var_ema = self.variable("batch_stats", "var", jnp.ones, (k,))
        scale = self.param("scale", self.scale_init, (k,))
        bias = self.param("bias", nn.initializers.zeros_init(), (k,))
        if train:
            mean, var, count = self._batch_statistics(x)
            if not self.is_initializing():
                unbiased = var * (count / max(count - 1, 1))
                keep = 1.0 - self.momentum
                mean_ema.value = keep * mean_ema.value + self.momentum * mean
                var_ema.value = keep * var_ema.value + self.momentum * unbiased
        else:
            mean, var = mean_ema.value, var_ema.value
        factor = scale * jax.lax.rsqrt(var + self.epsilon)
        shift = bias - mean * factor
        # In full precision too: a mean that is large beside the deviation would leave
        # bfloat16 few bits of the difference.
        full = wide(x)
        factor, shift = (
            part.astype(full.dtype)[None, None, None] for part in (factor, shift)
        )
        return (full * factor + shift).astype(x.dtype)

    def _batch_statistics(self, x: Array) -> tuple[Array, Array, int]:
        """Return mean, biased variance and count over the batch of all devices."""
        x = wide(x)
        mean = x.mean(axis=(0, 1, 2))
        count = x.size // x.shape[-1]
        if self.axis_name is None or self.is_initializing():
            return mean, _mean_square(x, mean), count
        mean = jax.lax.pmean(mean, self.axis_name)
        square = jax.lax.pmean(_mean_square(x, mean), self.axis_name)
        return mean, square, count * jax.lax.axis_size(self.axis_name)


def _mean_square(x: Array, centre: Array) -> Array:
    return jnp.square(x - centre[None, None, None]).mean(axis=(0, 1, 2))
