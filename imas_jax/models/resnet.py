"""ResNet-18 and ResNet-50 with dilated late stages; names are the checkpoint contract.

The paper's backbone (Sec. 3.2 and 4.2): "pytorch" style (the 3x3 carries the stride),
output stride 8 by dilation, and the first block of a dilated stage at half its dilation
(`contract_dilation` of the authors' framework). Parameter names follow torchvision's
with dots turned into underscores: `conv1`, `bn1`, `layer3_0/downsample_conv`, ...
Files come in the layouts users have: DenseCL (the paper's), MoCo v2 and v3, SwAV,
torchvision, timm, data-parallel, and inside the authors' own checkpoints.
"""

from collections.abc import Mapping
from typing import Any, Literal

import numpy as np
from flax import linen as nn
from flax import traverse_util
from jaxtyping import Array, Float

from imas_jax.conventions import Tree
from imas_jax.models import layers, torch_files
from imas_jax.models.backbone import Backbone, Foreign, Layout, Name

Depth = Literal[18, 50]

BLOCKS: dict[int, tuple[int, int, int, int]] = {18: (2, 2, 2, 2), 50: (3, 4, 6, 3)}
# Output stride -> strides and dilations of the four stages.
STAGES = {
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
        strides, dilations = STAGES[self.output_stride]
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


# Our modules whose names are not torchvision's with underscores for dots.
LAYERS = {"downsample_conv": "downsample.0", "downsample_bn": "downsample.1"}

# Modules of the authors' later method that IMAS does not have.
FOREIGN_HEADS = ("crf_head.", "compactness_head.")
# All but the backbone in the authors' files.
NOT_BACKBONE = ("decode_head", "backbone2_ema.", *FOREIGN_HEADS)
OPENMMLAB = ("neck.", "head.", "decode_head.", "auxiliary_head.", "data_preprocessor.")
MOMENTUM = ("encoder_k.", "queue")
SWAV_HEADS = ("module.projection_head.", "module.prototypes.")

LAYOUTS = (
    Layout(
        "authors' checkpoint",
        "model.backbone2.",
        tuple(f"model.{module}" for module in NOT_BACKBONE),
        whole=True,
    ),
    Layout("authors' network", "backbone2.", NOT_BACKBONE, whole=True),
    Layout(
        "MoCo v2",
        "module.encoder_q.",
        ("module.encoder_q.fc.", "module.encoder_k.", "module.queue"),
    ),
    Layout(
        "MoCo v3",
        "module.base_encoder.",
        (
            "module.base_encoder.fc.",
            "module.momentum_encoder.",
            "module.predictor.",
        ),
    ),
    Layout(
        "DenseCL in training", "encoder_q.0.", ("encoder_q.1.", "backbone.", *MOMENTUM)
    ),
    Layout("OpenMMLab", "backbone.", (*OPENMMLAB, *MOMENTUM)),
    Layout(
        "data-parallel",
        "module.",
        ("module.fc.", *SWAV_HEADS),
        "module.fc.weight",
    ),
    Layout("DenseCL, torchvision or timm", "", ("fc.",), "fc.weight"),
)


def torch_names(variables: Tree) -> dict[Name, str]:
    """Return our leaf -> torchvision's name."""
    leaves = traverse_util.flatten_dict(variables)
    return {name: torch_files.torch_name(name[1:], LAYERS) for name in leaves}


def describe(tensors: Mapping[str, np.ndarray], prefix: str) -> str:
    """Say which ResNet a file seems to hold."""
    blocks = sum(
        f"{prefix}layer{stage}.{i}.conv1.weight" in tensors
        for stage in (1, 2, 3, 4)
        for i in range(64)
    )
    bottleneck = f"{prefix}layer1.0.conv3.weight" in tensors
    depth = 2 + blocks * (3 if bottleneck else 2)
    width = (*tensors[f"{prefix}conv1.weight"].shape, 0)[0]
    return f"a ResNet-{depth} of width {width}"


def _backbone(depth: Depth) -> Backbone:
    def build(
        width: int, output_stride: int, axis_name: str | None, dtype: Any
    ) -> ResNet:
        return ResNet(depth, width, output_stride, axis_name, dtype)

    foreign = Foreign("ResNet", "conv1.weight", LAYOUTS, torch_names, describe)
    return Backbone(build, 64, tuple(STAGES), foreign=foreign)


RESNET50, RESNET18 = _backbone(50), _backbone(18)
