"""RAFT's sizes, encoders and recurrent refinement in Flax.

Teed & Deng, *RAFT: Recurrent All-Pairs Field Transforms for Optical Flow*, ECCV 2020,
Sec. 3.1, 3.3 and appendix A. The released networks, frozen: there is no training here.
Names are the checkpoint contract (`raft_weights.py` translates official ones).
"""

import dataclasses
from typing import Literal

import jax
import jax.numpy as jnp
from flax import linen as nn
from jaxtyping import Array, Float

from imas_jax.models import layers

Size = Literal["small", "large"]


@dataclasses.dataclass(frozen=True)
class Architecture:
    """The numbers in which RAFT's two networks differ.

    Attributes:
        bottleneck: Whether encoder blocks are 1x1, 3x3, 1x1 or twice 3x3.
        widths: Channels of the encoders' three stages.
        features: Channels that are correlated.
        context_norm: Normalisation in the context encoder.
        hidden: Channels of the recurrent state.
        context: Channels of the context the state is updated with.
        radius: The window read from each correlation level is `2 * radius + 1` wide.
        correlation_widths: Layers on the correlation, first 1x1, then 3x3.
        flow_widths: Layers on the current flow, first 7x7, then 3x3.
        motion: Channels of the two together, without the flow itself.
        gru_kernels: One gated unit each, in this order.
        head: Hidden channels of the flow head.
        mask: Hidden channels of the upsampling mask's head; 0 upsamples bilinearly.
    """

    bottleneck: bool
    widths: tuple[int, int, int]
    features: int
    context_norm: Literal["none", "batch"]
    hidden: int
    context: int
    radius: int
    correlation_widths: tuple[int, ...]
    flow_widths: tuple[int, int]
    motion: int
    gru_kernels: tuple[tuple[int, int], ...]
    head: int
    mask: int


ARCHITECTURES: dict[Size, Architecture] = {
    "small": Architecture(
        bottleneck=True,
        widths=(32, 64, 96),
        features=128,
        context_norm="none",
        hidden=96,
        context=64,
        radius=3,
        correlation_widths=(96,),
        flow_widths=(64, 32),
        motion=80,
        gru_kernels=((3, 3),),
        head=128,
        mask=0,
    ),
    "large": Architecture(
        bottleneck=False,
        widths=(64, 96, 128),
        features=256,
        context_norm="batch",
        hidden=128,
        context=128,
        radius=4,
        correlation_widths=(256, 192),
        flow_widths=(128, 64),
        motion=126,
        gru_kernels=((1, 5), (5, 1)),
        head=256,
        mask=256,
    ),
}


def convolve(
    x: Float[Array, "b h w k"], kernel: Float[Array, "kh kw k d"], stride: int = 1
) -> Float[Array, "b h2 w2 d"]:
    """Convolve with torch's symmetric padding; 1x1 as a matrix product."""
    kernel = kernel.astype(x.dtype)
    kh, kw = kernel.shape[:2]
    if (kh, kw) == (1, 1):
        return x[:, ::stride, ::stride] @ kernel[0, 0]
    return jax.lax.conv_general_dilated(
        x,
        kernel,
        window_strides=(stride, stride),
        padding=((kh // 2, kh // 2), (kw // 2, kw // 2)),
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
    )


class Conv(nn.Module):
    """Convolution with bias, as RAFT has it even before a norm.

    Attributes:
        features: Output channels.
        kernel: Side of the square kernel.
        stride: Step of both axes.
    """

    features: int
    kernel: int
    stride: int = 1

    @nn.compact
    def __call__(self, x: Float[Array, "b h w k"]) -> Float[Array, "b h2 w2 d"]:
        """Convolve in the input's type."""
        shape = (self.kernel, self.kernel, x.shape[-1], self.features)
        kernel = self.param("kernel", layers.he_fan_out, shape)
        bias = self.param("bias", nn.initializers.zeros_init(), (self.features,))
        return convolve(x, kernel, self.stride) + bias.astype(x.dtype)[None, None, None]


class Norm(nn.Module):
    """The normalisation an encoder uses: per frame, by running statistics, or none."""

    kind: Literal["instance", "batch", "none"]

    @nn.compact
    def __call__(self, x: Float[Array, "b h w k"]) -> Float[Array, "b h w k"]:
        """Normalise; statistics in full precision whatever the input's type."""
        if self.kind == "none":
            return x
        if self.kind == "batch":
            return layers.BatchNorm(name="batch")(x, train=False)
        wide = x.astype(jnp.promote_types(x.dtype, jnp.float32))
        mean = wide.mean(axis=(1, 2), keepdims=True)
        var = jnp.square(wide - mean).mean(axis=(1, 2), keepdims=True)
        return ((wide - mean) * jax.lax.rsqrt(var + 1e-5)).astype(x.dtype)


class Block(nn.Module):
    """Residual block; unlike a ResNet's, its last convolution is rectified too.

    Attributes:
        width: Output channels.
        stride: Step of the 3x3 convolution (the first of two) and of the shortcut.
        bottleneck: Whether to convolve at a quarter of the width.
        norm: Normalisation after each convolution.
    """

    width: int
    stride: int
    bottleneck: bool
    norm: Literal["instance", "batch", "none"]

    @nn.compact
    def __call__(self, x: Float[Array, "b h w k"]) -> Float[Array, "b h2 w2 d"]:
        """Transform."""
        # Width, kernel and stride of each convolution.
        convolutions = (
            ((self.width, 3, self.stride), (self.width, 3, 1))
            if not self.bottleneck
            else (
                (self.width // 4, 1, 1),
                (self.width // 4, 3, self.stride),
                (self.width, 1, 1),
            )
        )
        y = x
        for i, (width, kernel, stride) in enumerate(convolutions, start=1):
            y = Conv(width, kernel, stride, name=f"conv{i}")(y)
            y = nn.relu(Norm(self.norm, name=f"norm{i}")(y))
        if self.stride != 1:
            x = Conv(self.width, 1, self.stride, name="downsample_conv")(x)
            x = Norm(self.norm, name="downsample_norm")(x)
        return nn.relu(x + y)


class Encoder(nn.Module):
    """Frames to features at 1/8 of their size (Sec. 3.1)."""

    architecture: Architecture
    features: int
    norm: Literal["instance", "batch", "none"]

    @nn.compact
    def __call__(self, x: Float[Array, "b h w 3"]) -> Float[Array, "b h8 w8 d"]:
        """Encode frames in [-1, 1]; height and width are multiples of 8."""
        widths, bottleneck = self.architecture.widths, self.architecture.bottleneck
        x = Conv(widths[0], 7, 2, name="conv1")(x)
        x = nn.relu(Norm(self.norm, name="norm1")(x))
        for stage, width in enumerate(widths, start=1):
            for i in (0, 1):
                stride = 2 if stage > 1 and i == 0 else 1
                name = f"layer{stage}_{i}"
                x = Block(width, stride, bottleneck, self.norm, name=name)(x)
        return Conv(self.features, 1, name="conv2")(x)


class MotionEncoder(nn.Module):
    """Correlation and current flow to motion features (appendix A)."""

    architecture: Architecture

    @nn.compact
    def __call__(
        self,
        correlation: Float[Array, "b h8 w8 k"],
        flow: Float[Array, "b h8 w8 2"],
    ) -> Float[Array, "b h8 w8 d"]:
        """Encode, and append the flow itself."""
        x, y = correlation, flow
        for i, width in enumerate(self.architecture.correlation_widths, start=1):
            kernel = 1 if i == 1 else 3
            x = nn.relu(Conv(width, kernel, name=f"correlation{i}")(x))
        for i, width in enumerate(self.architecture.flow_widths, start=1):
            kernel = 7 if i == 1 else 3
            y = nn.relu(Conv(width, kernel, name=f"flow{i}")(y))
        x = jnp.concatenate([x, y], axis=-1)
        x = nn.relu(Conv(self.architecture.motion, 3, name="fuse")(x))
        return jnp.concatenate([x, flow], axis=-1)


class Gate(nn.Module):
    """One convolution of a gated unit, on hidden state, context and motion in turn.

    The context does not change between refinements, so its share of the sum is computed
    once: a quarter (small) or a third (large) of the unit's work.
    """

    architecture: Architecture
    kernel_size: tuple[int, int]

    def setup(self) -> None:
        """Declare the kernel over all three inputs, in the official order."""
        a = self.architecture
        inputs = a.hidden + a.context + a.motion + 2
        shape = (*self.kernel_size, inputs, a.hidden)
        self.kernel = self.param("kernel", layers.he_fan_out, shape)
        self.bias = self.param("bias", nn.initializers.zeros_init(), (a.hidden,))

    def constant(self, context: Float[Array, "b h w c"]) -> Float[Array, "b h w d"]:
        """Return the share of the context, and the bias."""
        a = self.architecture
        rows = self.kernel[:, :, a.hidden : a.hidden + a.context]
        bias = self.bias.astype(context.dtype)
        return convolve(context, rows) + bias[None, None, None]

    def __call__(
        self, x: Float[Array, "b h w k"], constant: Float[Array, "b h w d"]
    ) -> Float[Array, "b h w d"]:
        """Return the sum of all shares; `x` is hidden state and motion features."""
        a = self.architecture
        context = slice(a.hidden, a.hidden + a.context)
        kernel = jnp.delete(self.kernel, context, axis=2)
        return convolve(x, kernel) + constant


class GatedUnit(nn.Module):
    """Convolutional gated recurrent unit (Sec. 3.3)."""

    architecture: Architecture
    kernel_size: tuple[int, int]

    def setup(self) -> None:
        """Declare the three gates."""
        self.update = Gate(self.architecture, self.kernel_size)
        self.reset = Gate(self.architecture, self.kernel_size)
        self.proposal = Gate(self.architecture, self.kernel_size)

    def constants(self, context: Float[Array, "b h w c"]) -> tuple[Array, ...]:
        """Return what each gate adds at every refinement."""
        return tuple(
            gate.constant(context) for gate in (self.update, self.reset, self.proposal)
        )

    def __call__(
        self,
        hidden: Float[Array, "b h w d"],
        motion: Float[Array, "b h w k"],
        constants: tuple[Array, ...],
    ) -> Float[Array, "b h w d"]:
        """Return the new hidden state."""
        x = jnp.concatenate([hidden, motion], axis=-1)
        update = nn.sigmoid(self.update(x, constants[0]))
        reset = nn.sigmoid(self.reset(x, constants[1]))
        x = jnp.concatenate([reset * hidden, motion], axis=-1)
        proposal = nn.tanh(self.proposal(x, constants[2]))
        return (1 - update) * hidden + update * proposal


class Update(nn.Module):
    """One refinement of the flow (Sec. 3.3)."""

    architecture: Architecture

    def setup(self) -> None:
        """Declare motion encoder, gated units and flow head."""
        a = self.architecture
        self.motion_encoder = MotionEncoder(a)
        self.units = [GatedUnit(a, kernel) for kernel in a.gru_kernels]
        self.head = Head(a.head, 2, 3)

    def constants(
        self, context: Float[Array, "b h w c"]
    ) -> tuple[tuple[Array, ...], ...]:
        """Return what the gates of each unit add at every refinement."""
        return tuple(unit.constants(context) for unit in self.units)

    def __call__(
        self,
        hidden: Float[Array, "b h w d"],
        correlation: Float[Array, "b h w k"],
        flow: Float[Array, "b h w 2"],
        constants: tuple[tuple[Array, ...], ...],
    ) -> tuple[Float[Array, "b h w d"], Float[Array, "b h w 2"]]:
        """Return the new hidden state and the change of the flow."""
        motion = self.motion_encoder(correlation, flow)
        for unit, constant in zip(self.units, constants, strict=True):
            hidden = unit(hidden, motion, constant)
        return hidden, self.head(hidden)


class Head(nn.Module):
    """3x3 convolution, ReLU and a last convolution."""

    width: int
    features: int
    kernel: int

    @nn.compact
    def __call__(self, x: Float[Array, "b h w k"]) -> Float[Array, "b h w d"]:
        """Read off the hidden state."""
        x = nn.relu(Conv(self.width, 3, name="conv1")(x))
        return Conv(self.features, self.kernel, name="conv2")(x)
