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
        x = layers.Conv(self.width, 7, stride=2, dtype=self.dtype, name="conv1")(x)
        x = layers.BatchNorm(self.axis_name, name="bn1")(x, train)
        x = nn.max_pool(nn.relu(x), (3, 3), (2, 2), ((1, 1), (1, 1)))
        outputs = []
        for stage, count in enumerate(BLOCKS[self.depth]):
            for i in range(count):
                first = i == 0
                x = Block(
                    width=self.width * 2**stage,
                    bottleneck=self.depth == 50,
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


class Block(nn.Module):
    """A residual block: two 3x3 convolutions, or a bottleneck of 1x1, 3x3 and 1x1.

    Attributes:
        width: Channels inside; a bottleneck puts out four times as many.
        bottleneck: Which of the two.
        stride: Of the first 3x3 convolution and of the shortcut.
        dilation: Of the first 3x3 convolution.
        axis_name: Device axis over which batch norm is synchronised, or None.
        dtype: Computation type, or None for the input's.
    """

    width: int
    bottleneck: bool
    stride: int = 1
    dilation: int = 1
    axis_name: str | None = None
    dtype: Any = None

    @nn.compact
    def __call__(
        self, x: Float[Array, "b h w k"], train: bool
    ) -> Float[Array, "b h2 w2 d"]:
        """Apply the block."""
        w, plain = self.width, (1, 1)
        # Width, kernel, and stride and dilation of each convolution.
        first = (w, 3, (self.stride, self.dilation))
        convolutions = (
            ((w, 1, plain), first, (4 * w, 1, plain))
            if self.bottleneck
            else (first, (w, 3, plain))
        )
        y, last = x, len(convolutions)
        for i, (width, kernel, (stride, dilation)) in enumerate(convolutions, start=1):
            y = layers.Conv(
                width, kernel, stride, dilation, dtype=self.dtype, name=f"conv{i}"
            )(y)
            # The last scale starts at zero, and with it the block as its shortcut.
            start = nn.initializers.zeros_init() if i == last else nn.initializers.ones
            y = layers.BatchNorm(self.axis_name, start, name=f"bn{i}")(y, train)
            y = y if i == last else nn.relu(y)
        return nn.relu(self._shortcut(x, train, y.shape[-1]) + y)

    def _shortcut(self, x: Array, train: bool, width: int) -> Array:
        """Project the input where the block changes its width or grid."""
        if self.stride == 1 and x.shape[-1] == width:
            return x
        x = layers.Conv(
            width, 1, self.stride, dtype=self.dtype, name="downsample_conv"
        )(x)
        return layers.BatchNorm(self.axis_name, name="downsample_bn")(x, train)
