"""Axes, units and ranges, said once; the structs that cross module borders.

Axes
    Arrays are channels-last: images `(b, h, w, 3)`, flow `(b, h, w, 2)`, masks
    `(b, h, w, c)`. `t` is a frame axis, `k` features.
Images
    RGB. `uint8` in 0..255 on the host and in batches; floats are in [0, 1];
    the network sees floats normalised with `IMAGENET_MEAN` and `IMAGENET_STD`.
Flow
    `flow[..., 0]` is dx (right), `flow[..., 1]` is dy (down), in pixels of the
    frame it was computed on *whatever the resolution it is stored at* (paper code:
    flow is resized without a change of magnitude). Forward flow of pair (t, t+1)
    lives on the grid of frame t; backward flow, t+1 -> t, on the grid of frame t+1.
Masks
    Soft masks are a softmax over the last axis, in [0, 1]. Binary masks are bool.
Resizing
    Bilinear, half-pixel centres, no antialias (`geometry.resize`), unless a name
    says otherwise.
"""

from typing import Any

import jax
import numpy as np
from flax import struct
from jaxtyping import Array, Float, Int, UInt8

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)

# A nested dict of arrays: parameters, batch statistics, gradients.
Tree = Any

# Batches are NumPy arrays until the train step receives them, and shapes alone where
# nothing is computed (`jax.eval_shape`).
HostOrDevice = Array | np.ndarray | jax.ShapeDtypeStruct


@struct.dataclass
class Features:
    """What a backbone hands to the heads.

    Attributes:
        merge: Shallow features, in a ResNet at 1/4 of the frame, or None without
            feature merging.
        deep: Last features, at 1/output_stride of the frame.
    """

    merge: Float[HostOrDevice, "*b h4 w4 k"] | None
    deep: Float[HostOrDevice, "*b h8 w8 d"]


@struct.dataclass
class Batch:
    """Frame pairs as they leave the host; all augmentation is still to come.

    Attributes:
        frames: Frames t and t+1, RGB, 0..255, at the stored size; of a frozen backbone
            its features of them, whole and as they are.
        flow_forward: Flow t -> t+1 on frame t's grid, pixels of the stored frame; its
            grid may be coarser than the frames'.
        flow_backward: Flow t+1 -> t on frame t+1's grid, same units and size.
        target: Stage-2 object targets of both frames, 0..255 for [0, 1], or None in
            stage 1; its grid may be coarser than the frames'.
        pair: Index of the pair in the dataset.
    """

    frames: UInt8[HostOrDevice, "*b 2 h w 3"] | Features
    flow_forward: Float[HostOrDevice, "*b hf wf 2"]
    flow_backward: Float[HostOrDevice, "*b hf wf 2"]
    target: UInt8[HostOrDevice, "*b 2 ht wt"] | None
    pair: Int[HostOrDevice, "*b"]


@struct.dataclass
class Sample:
    """A batch after augmentation: what the losses see.

    Attributes:
        frames: Normalised frames t and t+1, at crop size, or features as in `Batch`.
        flow_forward: As in `Batch`, at mask resolution, augmented with the frames.
        flow_backward: As in `Batch`, at mask resolution, augmented with the frames.
        target: Stage-2 object targets in [0, 1] at mask resolution, or None.
    """

    frames: Float[Array, "*b 2 h w 3"] | Features
    flow_forward: Float[Array, "*b hm wm 2"]
    flow_backward: Float[Array, "*b hm wm 2"]
    target: Float[Array, "*b 2 hm wm"] | None


@struct.dataclass
class Prediction:
    """What a network says of frame pairs.

    Attributes:
        logits: Mask logits of frames t and t+1; softmax over the last axis gives masks.
        residual_forward: Unbounded residual maps of t -> t+1, one 2-vector a channel
            (component-major: x of all channels, then y), at feature resolution;
            None without a residual pathway.
        residual_backward: The same for t+1 -> t.
    """

    logits: Float[Array, "b 2 hm wm c"]
    residual_forward: Float[Array, "b hu wu 2*c"] | None
    residual_backward: Float[Array, "b hu wu 2*c"] | None
