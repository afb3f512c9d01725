"""Layers every network here shares, written for parity and for speed on a CPU."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn
from flax import struct
from jaxtyping import Array, Float

Dtype = Any
Initializer = Callable[..., Array]

# He initialisation with fan-out, as the authors' framework starts backbones.
he_fan_out = nn.initializers.variance_scaling(2.0, "fan_out", "normal")
# torch's default for convolutions, U(+-1/sqrt(fan_in)): the authors' last layers.
uniform_fan_in = nn.initializers.variance_scaling(1 / 3, "fan_in", "uniform")


def uniform_bias(fan_in: int) -> Initializer:
    """Return torch's default bias initialiser, U(+-1/sqrt(fan_in))."""

    def initialise(key: Array, shape: tuple[int, ...], dtype: Any = float) -> Array:
        limit = fan_in**-0.5
        return jax.random.uniform(key, shape, dtype, -limit, limit)

    return initialise


@struct.dataclass
class Features:
    """What a backbone hands to the heads.

    Attributes:
        merge: Shallow features at 1/4 of the frame, for feature merging.
        deep: Last features, at 1/output_stride of the frame.
    """

    merge: Float[Array, "b h4 w4 k"]
    deep: Float[Array, "b h8 w8 d"]


class Conv(nn.Module):
    """2-D convolution with torch's symmetric padding and an HWIO kernel.

    A 1x1 kernel is applied as a matrix product: XLA on a CPU is slow at the weight
    gradient of a 1x1 convolution.

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
        x, kernel = x.astype(dtype), kernel.astype(dtype)
        if self.kernel == 1:
            x = x[:, :: self.stride, :: self.stride]
            x = jnp.matmul(x, kernel[0, 0], precision=self.precision)
        else:
            pad = self.dilation * (self.kernel // 2)
            x = jax.lax.conv_general_dilated(
                x,
                kernel,
                window_strides=(self.stride, self.stride),
                padding=((pad, pad), (pad, pad)),
                rhs_dilation=(self.dilation, self.dilation),
                dimension_numbers=("NHWC", "HWIO", "NHWC"),
                precision=self.precision,
            )
        if self.bias:
            bias = self.param("bias", self.bias_init, (self.features,))
            x = x + bias.astype(dtype)[None, None, None]
        return x


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
        every_pixel = (None, None, None)
        return (
            x * factor.astype(x.dtype)[every_pixel] + shift.astype(x.dtype)[every_pixel]
        )

    def _batch_statistics(self, x: Array) -> tuple[Array, Array, int]:
        """Return mean, biased variance and count over the batch of all devices."""
        wide = x.astype(jnp.promote_types(x.dtype, jnp.float32))
        mean = wide.mean(axis=(0, 1, 2))
        count = x.size // x.shape[-1]
        if self.axis_name is None or self.is_initializing():
            return mean, _mean_square(wide, mean), count
        mean = jax.lax.pmean(mean, self.axis_name)
        square = jax.lax.pmean(_mean_square(wide, mean), self.axis_name)
        return mean, square, count * jax.lax.axis_size(self.axis_name)


def _mean_square(x: Array, centre: Array) -> Array:
    return jnp.square(x - centre[None, None, None]).mean(axis=(0, 1, 2))
