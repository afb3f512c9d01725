"""AMD, the model IMAS is compared with: masks and motion learned from frames alone.

Liu, Wu, Yu and Lin, *The Emergence of Objectness: Learning Zero-Shot Segmentation from
Videos*, NeurIPS 2021; the paper's Sec. 6.2 tunes it too. An appearance network gives
the masks of one frame, a motion network compares both frames. Each channel's motion is
read off the motion features pooled under its mask, and one frame is warped to the other
by these motions: no optical flow comes from outside. Sizes are ours, small; where the
original pools features of PWC-Net, here are correlations at two scales.
"""

from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn
from flax import struct
from jaxtyping import Array, Float

from imas_jax import composition, geometry
from imas_jax.models import layers, segmenter

RADIUS = 3  # pixels of a grid within which features are compared


@struct.dataclass
class JointPrediction:
    """What AMD says of frame pairs.

    Attributes:
        logits: Mask logits of frames t and t+1.
        motion_forward: Motion features t -> t+1, on frame t's 1/4 grid.
        motion_backward: The same for t+1 -> t, on frame t+1's.
    """

    logits: Float[Array, "b 2 hm wm c"]
    motion_forward: Float[Array, "b h4 w4 k"]
    motion_backward: Float[Array, "b h4 w4 k"]


class AMD(segmenter.Segmenter):
    """Segmenter, motion network and the head that reads motion off its features.

    Of the spec's fields `motion_width` is the width of the motion network and
    `residual_bound` the fastest motion, pixels of the crop; others are the segmenter's.
    """

    def setup(self) -> None:
        """Make the parts."""
        super().setup()
        width = self.spec.motion_width
        self.motion_network = MotionNetwork(width, self.axis_name, self.dtype)
        self.motion_head = MotionHead(width)

    def __call__(
        self, frames: Float[Array, "b 2 h w 3"], train: bool
    ) -> JointPrediction:
        """Predict masks and motion features of frame pairs.

        Args:
            frames: Normalised frames t and t+1.
            train: As in `IMAS`.
        """
        features = self.features(frames.reshape(-1, *frames.shape[2:]), train)
        logits = self.mask_logits(features, train)
        logits = logits.reshape(-1, 2, *logits.shape[1:])
        motion = self.motion_network(frames, train)
        if self.is_initializing():
            self.motion_head(motion[:, 0, 0])
        return JointPrediction(logits, motion[:, 0], motion[:, 1])

    def flow(
        self, masks: Float[Array, "b h w c"], motion: Float[Array, "b h4 w4 k"]
    ) -> Float[Array, "b h w 2"]:
        """Compose the flow of one direction: one motion a channel, pixels of the crop.

        Args:
            masks: Soft masks of the flow's source frame.
            motion: That direction's motion features.
        """
        spec, size = self.spec, (masks.shape[1], masks.shape[2])
        pooled = composition.pool_by_mask(geometry.resize(motion, size), masks)
        raw = self.motion_head(pooled) / spec.residual_divisor
        vectors = spec.residual_bound * jnp.tanh(raw)
        return composition.compose(masks, vectors[:, None, None])


class MotionNetwork(nn.Module):
    """Frame pair -> motion features of both directions.

    Both frames go through one encoder; what is compared are its features at 1/4 and 1/8
    within `RADIUS`, so up to 12 and 24 pixels.

    Attributes:
        width: Features; the encoder's first layer has half as many.
        axis_name: Device axis over which batch norm is synchronised, or None.
        dtype: Computation type, or None for the input's.
    """

    width: int
    axis_name: str | None = None
    dtype: Any = None

    @nn.compact
    def __call__(
        self, frames: Float[Array, "b 2 h w 3"], train: bool
    ) -> Float[Array, "b 2 h4 w4 k"]:
        """Compare both frames."""

        def block(x: Array, features: int, stride: int, name: str) -> Array:
            x = layers.Conv(
                features, stride=stride, dtype=self.dtype, name=f"{name}_conv"
            )(x)
            x = layers.BatchNorm(self.axis_name, name=f"{name}_bn")(x, train)
            return nn.relu(x)

        both = frames.reshape(-1, *frames.shape[2:])
        half = block(both, -(-self.width // 2), 2, "down2")
        quarter = block(half, self.width, 2, "down4")
        eighth = block(quarter, self.width, 2, "down8")
        size = (quarter.shape[1], quarter.shape[2])
        seen = [
            layers.resize(correlate_pairs(quarter), size),
            layers.resize(correlate_pairs(eighth), size),
        ]
        x = block(jnp.concatenate(seen, axis=-1), 2 * self.width, 1, "compare1")
        x = layers.wide(block(x, self.width, 1, "compare2"))
        return x.reshape(-1, 2, *x.shape[1:])


class MotionHead(nn.Module):
    """Pooled motion features -> a motion, unbounded: two layers."""

    width: int

    @nn.compact
    def __call__(self, pooled: Float[Array, "b c k"]) -> Float[Array, "b c 2"]:
        """Read the motions."""
        x = nn.leaky_relu(nn.Dense(2 * self.width, name="hidden")(pooled), 0.1)
        return nn.Dense(2, name="motion")(x)


def correlate_pairs(
    features: Float[Array, "b h w k"],
) -> Float[Array, "b h w n"]:
    """Correlate the frames of each pair, both ways; pairs lie side by side."""
    pairs = features.reshape(-1, 2, *features.shape[1:])
    first, second = pairs[:, 0], pairs[:, 1]
    maps = jnp.stack([correlate(first, second), correlate(second, first)], axis=1)
    return maps.reshape(-1, *maps.shape[2:])


def correlate(
    here: Float[Array, "b h w k"], there: Float[Array, "b h w k"]
) -> Float[Array, "b h w n"]:
    """Compare every pixel with the other frame's pixels around it.

    Returns:
        Cosines, rows of displacements from up to down, in each from left to right; 0
        beyond the border.
    """
    here, there = _unit(here), _unit(there)
    h, w = here.shape[1:3]
    reach = 2 * RADIUS + 1
    border = ((0, 0), (RADIUS, RADIUS), (RADIUS, RADIUS), (0, 0))
    padded = jnp.pad(there, border)

    def one(index: Array) -> Array:
        start = (0, index // reach, index % reach, 0)
        moved = jax.lax.dynamic_slice(padded, start, here.shape)
        return (here * moved).sum(axis=-1)

    maps = jax.lax.map(one, jnp.arange(reach**2))
    return jnp.moveaxis(maps, 0, -1).reshape(-1, h, w, reach**2)


def _unit(x: Array) -> Array:
    """Scale every pixel's vector to length 1; a zero vector stays."""
    square = jnp.square(x).sum(axis=-1, keepdims=True)
    return x * jax.lax.rsqrt(jnp.maximum(square, 1e-6))
