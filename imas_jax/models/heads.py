"""What sits on the backbone: mask head, residual-flow head, motion pooling.

Paper Sec. 3.2. Sizes and initialisation follow the authors' code where the paper is
silent: two Conv-BN-ReLU and a plain 1x1 convolution (the paper's text says three
Conv-BN-ReLU), initialised as their framework does by default.
"""

from typing import Any

import jax
from flax import linen as nn
from jaxtyping import Array, Float

from imas_jax.conventions import Features
from imas_jax.models import layers


class ConvHead(nn.Module):
    """Two dilated Conv-BN-ReLU, channel dropout, a 1x1 convolution with bias.

    Attributes:
        features: Output channels.
        width: Hidden channels.
        dilation: Of both convolutions, which are 3x3; 0 makes them 1x1, so that every
            pixel is judged by its own features.
        dropout: Probability with which a whole channel is zeroed in training.
        axis_name: Device axis over which batch norm is synchronised, or None.
        dtype: Computation type, or None for the input's; the last layer and what the
            head returns are float32 at least.
    """

    features: int
    width: int = 256
    dilation: int = 6
    dropout: float = 0.1
    axis_name: str | None = None
    dtype: Any = None

    @nn.compact
    def __call__(self, features: Features, train: bool) -> Float[Array, "b h w d"]:
        """Apply the head; training wants a `dropout` key unless dropout is 0.

        The output has the grid of the shallow features, of the deep ones without them.
        """
        x = layers.MergingConv(self.width, self.dilation, self.dtype, name="conv1")(
            features
        )
        x = nn.relu(layers.BatchNorm(self.axis_name, name="bn1")(x, train))
        x = layers.Conv(
            self.width,
            layers.taps_of(self.dilation),
            dilation=self.dilation,
            dtype=self.dtype,
            name="conv2",
        )(x)
        x = nn.relu(layers.BatchNorm(self.axis_name, name="bn2")(x, train))
        # Whole channels: neighbouring pixels say too much of a zeroed one.
        # Its name is part of its key.
        x = layers.ChannelDropout(self.dropout, self.axis_name, name="Dropout_0")(
            x, train
        )
        # Never in bfloat16: its 8 bits are few for a logit or a residual in pixels, and
        # the layer costs next to nothing.
        return layers.Conv(
            self.features,
            1,
            bias=True,
            kernel_init=layers.uniform_fan_in,
            bias_init=layers.uniform_bias(self.width),
            name="classifier",
        )(layers.wide(x))


class SegmentationHead(ConvHead):
    """Features, merged or deep alone, -> mask logits (paper Sec. 3.2)."""


class ResidualFlowHead(ConvHead):
    """Concatenated features of a pair -> [forward, backward] residual maps."""


class MotionPooling(nn.Module):
    """Learned maps around the pooling of flow: phi_1 before, phi_2 after (equation 1).

    Attributes:
        width: Hidden units; 0 makes both maps the identity.
    """

    width: int = 64

    def setup(self) -> None:
        """Make two layers each; all with bias."""
        if self.width == 0:
            return
        w = self.width
        self.phi_1_0 = _plain_conv(w, kernel=3, fan_in=9 * 2)
        self.phi_1_1 = _plain_conv(w, kernel=3, fan_in=9 * w)
        self.phi_2_0 = _plain_conv(w, kernel=1, fan_in=w)
        self.phi_2_1 = _plain_conv(2, kernel=1, fan_in=w)

    def phi_1(self, flow: Float[Array, "b h w 2"]) -> Float[Array, "b h w k"]:
        """Map flow (pixels) before it is pooled: two 3x3 convolutions."""
        if self.width == 0:
            return flow
        return _leaky(self.phi_1_1(_leaky(self.phi_1_0(flow))))

    def phi_2(self, pooled: Float[Array, "b c k"]) -> Float[Array, "b c 2"]:
        """Map each channel's pooled vector to its flow (pixels)."""
        if self.width == 0:
            return pooled
        x = pooled[:, None]
        return self.phi_2_1(_leaky(self.phi_2_0(x)))[:, 0]

    def __call__(self, flow: Float[Array, "b h w 2"]) -> Float[Array, "b 1 2"]:
        """Touch every parameter, for initialisation: pool over the whole map."""
        return self.phi_2(self.phi_1(flow).mean(axis=(1, 2))[:, None])


def _plain_conv(features: int, kernel: int, fan_in: int) -> layers.Conv:
    return layers.Conv(
        features,
        kernel,
        bias=True,
        kernel_init=layers.uniform_fan_in,
        bias_init=layers.uniform_bias(fan_in),
        precision=jax.lax.Precision.HIGHEST,  # it carries flow
    )


def _leaky(x: Array) -> Array:
    return nn.leaky_relu(x, 0.1)
