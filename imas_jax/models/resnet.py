"""ResNet-18 and ResNet-50 with dilated late stages; names are the checkpoint contract.

The paper's backbone (Sec. 3.2 and 4.2): "pytorch" style (the 3x3 carries the stride),
output stride 8 by dilation, and the first block of a dilated stage at half its dilation
(`contract_dilation` of the authors' framework). Parameter names follow torchvision's
with dots turned into underscores: `conv1`, `bn1`, `layer3_0/downsample_conv`, ...
"""

from typing import Any, Literal

from flax import linen as nn
from jaxtyping import Array, Float

from imas_jax.models import layers

Depth = Literal[18, 50]

BLOCKS: dict[int, tuple[int, int, int, int]] = {18: (2, 2, 2, 2), 50: (3, 4, 6, 3)}
# Output stride -> strides and dilations of the four stages.
LAYOUTS = {
    8: ((1, 2, 1, 1), (1, 1, 2, 4)),
    16: ((1, 2, 2, 1), (1, 1, 1, 2)),
    32: ((1, 2, 2, 2), (1, 1, 1, 1)),
}


class ResNet(nn.Module):
    """A residual network without its classifier.

    Attributes:
        depth: 18 (two 3x3 a block) or 50 (bottlenecks, four times wider outputs).
        width: Channels of the first stage; each further stage doubles it.
        output_stride: Pixels a step of the last stage's grid spans: 8, 16 or 32.
        axis_name: Device axis over which batch norm is synchronised, or None.
        dtype: Computation type, or None for the input's.
    """

    depth: Depth = 50
    width: int = 64
    output_stride: int = 8
    axis_name: str | None = None
    dtype: Any = None

    @nn.compact
    def __call__(
        self, x: Float[Array, "b h w 3"], train: bool
    ) -> tuple[Float[Array, "b hs ws ks"], ...]:
        """Return the outputs of the four stages, at 1/4, 1/8, ... of the input."""
        strides, dilations = LAYOUTS[self.output_stride]
        block = BasicBlock if self.depth == 18 else Bottleneck
        x = layers.Conv(self.width, 7, stride=2, dtype=self.dtype, name="conv1")(x)
        x = layers.BatchNorm(self.axis_name, name="bn1")(x, train)
        x = nn.max_pool(nn.relu(x), (3, 3), (2, 2), ((1, 1), (1, 1)))
        outputs = []
        for stage, count in enumerate(BLOCKS[self.depth]):
            for i in range(count):
                first = i == 0
                x = block(
                    width=self.width * 2**stage,
                    stride=strides[stage] if first else 1,
                    dilation=max(dilations[stage] // 2, 1)
                    if first
                    else dilations[stage],
                    axis_name=self.axis_name,
                    dtype=self.dtype,
                    name=f"layer{stage + 1}_{i}",
                )(x, train)
            outputs.append(x)
        return tuple(outputs)


class BasicBlock(nn.Module):
    """Two 3x3 convolutions and a shortcut; only the first is strided or dilated."""

    width: int
    stride: int = 1
    dilation: int = 1
    axis_name: str | None = None
    dtype: Any = None

    @nn.compact
    def __call__(
        self, x: Float[Array, "b h w k"], train: bool
    ) -> Float[Array, "b h2 w2 d"]:
        """Apply the block."""
        y = layers.Conv(
            self.width,
            stride=self.stride,
            dilation=self.dilation,
            dtype=self.dtype,
            name="conv1",
        )(x)
        y = nn.relu(layers.BatchNorm(self.axis_name, name="bn1")(y, train))
        y = layers.Conv(self.width, dtype=self.dtype, name="conv2")(y)
        y = last_norm(self.axis_name, "bn2")(y, train)
        x = shortcut(x, train, self.width, self.stride, self.axis_name, self.dtype)
        return nn.relu(x + y)


class Bottleneck(nn.Module):
    """1x1, 3x3, 1x1 convolutions and a shortcut; output is four times `width`."""

    width: int
    stride: int = 1
    dilation: int = 1
    axis_name: str | None = None
    dtype: Any = None

    @nn.compact
    def __call__(
        self, x: Float[Array, "b h w k"], train: bool
    ) -> Float[Array, "b h2 w2 d"]:
        """Apply the block."""
        wide = 4 * self.width
        y = layers.Conv(self.width, 1, dtype=self.dtype, name="conv1")(x)
        y = nn.relu(layers.BatchNorm(self.axis_name, name="bn1")(y, train))
        y = layers.Conv(
            self.width,
            stride=self.stride,
            dilation=self.dilation,
            dtype=self.dtype,
            name="conv2",
        )(y)
        y = nn.relu(layers.BatchNorm(self.axis_name, name="bn2")(y, train))
        y = layers.Conv(wide, 1, dtype=self.dtype, name="conv3")(y)
        y = last_norm(self.axis_name, "bn3")(y, train)
        x = shortcut(x, train, wide, self.stride, self.axis_name, self.dtype)
        return nn.relu(x + y)


def last_norm(axis_name: str | None, name: str) -> layers.BatchNorm:
    """Build a block's last norm, whose zero scale starts the block as identity."""
    return layers.BatchNorm(
        axis_name, scale_init=nn.initializers.zeros_init(), name=name
    )


def shortcut(
    x: Array, train: bool, width: int, stride: int, axis_name: str | None, dtype: Any
) -> Array:
    """Project the input where the block changes its width or grid.

    Called inside a block's compact method, whose scope it names its layers in.
    """
    if stride == 1 and x.shape[-1] == width:
        return x
    x = layers.Conv(width, 1, stride=stride, dtype=dtype, name="downsample_conv")(x)
    return layers.BatchNorm(axis_name, name="downsample_bn")(x, train)
