"""A small encoder-decoder that learns from scratch on one clip and a CPU.

Not in the paper: a ResNet-50 started from random weights wants days of video and an
accelerator; this net wants a minute. It has the interface of the ResNet backbones, so
heads, losses and stages are the same. Its default place is `configs/video.py`.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np
from flax import linen as nn
from flax import traverse_util
from jaxtyping import Array, Float

from imas_jax.conventions import Tree
from imas_jax.geometry import resize
from imas_jax.models import torch_files
from imas_jax.models.backbone import Backbone, Foreign, Layout, Name
from imas_jax.models.layers import BatchNorm, Conv


class UNet(nn.Module):
    """Four scales down to 1/16, two up to 1/4.

    Attributes:
        width: Channels at 1/2 resolution; deeper scales have 2, 4 and 6 times as many.
        dtype: Computation type.
        axis_name: Device axis for batch statistics, or None.
    """

    width: int = 16
    dtype: Any = None
    axis_name: str | None = None

    @nn.compact
    def __call__(
        self, x: Float[Array, "b h w 3"], train: bool
    ) -> tuple[Float[Array, "b h4 w4 k1"], Float[Array, "b h8 w8 k2"]]:
        """Return decoder features at 1/4 and 1/8 of the input size (rounded up)."""

        def block(x: Array, features: int, stride: int, name: str) -> Array:
            x = Conv(features, stride=stride, dtype=self.dtype, name=f"{name}_conv")(x)
            x = BatchNorm(self.axis_name, name=f"{name}_bn")(x, train)
            return nn.relu(x)

        def add(coarse: Array, fine: Array, name: str) -> Array:
            # A 1x1 convolution before an added skip: half the arithmetic of a 3x3 one
            # over concatenated maps, where a CPU spends most of its time.
            k = fine.shape[-1]
            x = Conv(k, kernel=1, dtype=self.dtype, name=f"{name}_project")(coarse)
            return fine + resize(x, (fine.shape[1], fine.shape[2]))

        w = self.width
        half = block(x, w, 2, "down2")
        quarter = block(block(half, 2 * w, 2, "down4"), 2 * w, 1, "same4")
        eighth = block(block(quarter, 4 * w, 2, "down8"), 4 * w, 1, "same8")
        coarse = block(block(eighth, 6 * w, 2, "down16"), 6 * w, 1, "same16")
        deep = block(add(coarse, eighth, "up8"), 2 * w, 1, "up8")
        merge = block(add(deep, quarter, "up4"), 2 * w, 1, "up4")
        return merge, deep


def _build(width: int, output_stride: int, axis_name: str | None, dtype: Any) -> UNet:
    del output_stride  # it has one
    return UNet(width, dtype, axis_name)


def torch_names(variables: Tree) -> dict[Name, str]:
    """Return our leaf -> its name in a file; only stage pretrain writes such files."""
    leaves = traverse_util.flatten_dict(variables)
    return {name: torch_files.torch_name(name[1:], {}) for name in leaves}


def describe(tensors: Mapping[str, np.ndarray], prefix: str) -> str:
    """Say which U-Net a file seems to hold."""
    width = (*tensors[f"{prefix}down2_conv.weight"].shape, 0)[0]
    return f"a U-Net of width {width}"


_FOREIGN = Foreign(
    "U-Net",
    "down2_conv.weight",
    (Layout("stage pretrain", ""),),
    torch_names,
    describe,
)
UNET = Backbone(_build, width=16, strides=(8,), foreign=_FOREIGN)
