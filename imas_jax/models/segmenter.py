"""The appearance network: single frames -> mask logits. What every model here has.

Paper Sec. 3.2: backbone and segmentation head. Only this part is used to predict.
"""

import dataclasses
from typing import Any, Literal

import jax
import jax.numpy as jnp
from flax import linen as nn
from jaxtyping import Array, Float

from imas_jax.conventions import Features
from imas_jax.models import heads, vit
from imas_jax.models.backbone import Backbone
from imas_jax.models.resnet import RESNET18, RESNET50
from imas_jax.models.unet import UNET

BACKBONES: dict[str, Backbone] = {
    "resnet50": RESNET50,
    "resnet18": RESNET18,
    "unet": UNET,
    "vit_s16": vit.S16,
    "vit_s8": vit.S8,
    "vit_s14": vit.S14,
    "vit_s14_reg": vit.S14_REG,
}
Pathway = Literal["residual", "none", "scaling", "affine", "residual_affine"]


@dataclasses.dataclass(frozen=True)
class ModelSpec:
    """The network's choices; fields are those of `config.model` (configs/davis.py)."""

    backbone: str
    width: int
    output_stride: int
    channels: int
    feature_merging: bool
    head_width: int
    head_dilation: int
    dropout: float
    pathway: Pathway
    motion_width: int
    residual_bound: float
    residual_divisor: float
    still_background: bool


class Segmenter(nn.Module):
    """Backbone and segmentation head, under `backbone` and `segmentation_head`.

    Features may be given in the place of frames: of a frozen backbone they are computed
    once. The backbone's parameters are not asked for then.

    Attributes:
        spec: The network's choices.
        axis_name: Device axis over which batch norm is synchronised, or None.
        dtype: Computation type of backbone and heads, or None for the input's.
            Logits are float32 at least.
    """

    spec: ModelSpec
    axis_name: str | None = None
    dtype: Any = None

    def setup(self) -> None:
        """Make both parts."""
        spec = self.spec
        self.backbone = BACKBONES[spec.backbone].build(
            spec.width, spec.output_stride, self.axis_name, self.dtype
        )
        self.segmentation_head = heads.SegmentationHead(
            self.spec.channels, **self.head_settings()
        )

    def head_settings(self) -> dict[str, Any]:
        """Return what all heads of the network have in common."""
        return {
            "width": self.spec.head_width,
            "dilation": self.spec.head_dilation,
            "dropout": self.spec.dropout,
            "axis_name": self.axis_name,
            "dtype": self.dtype,
        }

    def segment(
        self, frames: Float[Array, "b h w 3"] | Features
    ) -> Float[Array, "b hm wm c"]:
        """Return mask logits of single normalised frames, for inference."""
        return self.mask_logits(self.features(frames, train=False), train=False)

    def pair_logits(
        self, frames: Float[Array, "b 2 h w 3"] | Features, train: bool
    ) -> Float[Array, "b 2 hm wm c"]:
        """Return mask logits of normalised frame pairs, each frame on its own."""
        logits = self.mask_logits(self.features(one_by_one(frames), train), train)
        return logits.reshape(-1, 2, *logits.shape[1:])

    def features(
        self, frames: Float[Array, "b h w 3"] | Features, train: bool
    ) -> Features:
        """Return what the backbone sees in single normalised frames."""
        if isinstance(frames, Features):  # stored in half precision
            dtype = self.dtype or jnp.float32
            return jax.tree.map(lambda x: jnp.asarray(x, dtype), frames)
        frames = BACKBONES[self.spec.backbone].renormalize(frames)
        stages = self.backbone(frames, train)
        return Features(merge=stages[0], deep=stages[-1])

    def mask_logits(self, features: Features, train: bool) -> Float[Array, "b hm wm c"]:
        """Return mask logits of single frames from their features."""
        if not self.spec.feature_merging:
            features = Features(None, features.deep)
        return self.segmentation_head(features, train)


def one_by_one(
    pairs: Float[Array, "b 2 h w 3"] | Features,
) -> Float[Array, "n h w 3"] | Features:
    """Lay the frames of pairs, or their features, one behind the other."""
    return jax.tree.map(lambda x: x.reshape(-1, *x.shape[2:]), pairs)
