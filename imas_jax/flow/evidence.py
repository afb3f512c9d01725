"""Learned motion evidence: from flow and frame to what moves on its own.

A small network (`models/evidence_net.py`) looks at a frame's flow to a few other frames
and gives each pixel a probability. It was trained on rendered clips only
(`imas_jax/rendered`, configs/motion.py): no annotation went into it.

Whatever the clip, it works on one grid: the frame shrunk to a short side of
`SHORT_SIDE`, on which flow counts pixels of a frame twice as large, as flow files do.
"""

import dataclasses
from collections.abc import Sequence

import cv2
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, UInt8

from imas_jax.flow import motion

SHORT_SIDE = 120  # of the grid
FRAME_SIDE = 240  # short side of the frame whose pixels flow counts
OFFSETS = (1, -1, 3, -3)  # of the frames looked at, in flow gaps
PER_SIDE = 4  # channels a look gives
LEAST = 0.3  # px: what moves less is mostly the flow's error


@dataclasses.dataclass(frozen=True)
class Look:
    """What is known of a frame and another.

    Attributes:
        flow: From the frame to the other, pixels of the frame, on any grid.
        opposite: Back, on the same grid.
        homography: Camera motion of `flow`, in pixel indices of the frame.
        other: The other frame.
    """

    flow: Float[np.ndarray, "hf wf 2"]
    opposite: Float[np.ndarray, "hf wf 2"]
    homography: Float[np.ndarray, "3 3"]
    other: UInt8[np.ndarray, "h w 3"]


@dataclasses.dataclass(frozen=True)
class Observation:
    """What the network sees of a frame, before it is scaled.

    Attributes:
        looks: By offset: flow less camera motion (x, y; of earlier frames negated),
            how far a round trip misses, both in pixels of a frame `FRAME_SIDE` high;
            difference of the frames once the camera is still, 0..1.
        camera: Camera motion to the first frame looked at, the same pixels.
        frame: RGB, 0..1.
        scales: By offset: 98th percentile of the flow less camera motion.
    """

    looks: Float[np.ndarray, "h w n*4"]
    camera: Float[np.ndarray, "h w 2"]
    frame: Float[np.ndarray, "h w 3"]
    scales: Float[np.ndarray, " n"]


def grid_size(frame_size: tuple[int, int]) -> tuple[int, int]:
    """Return (h, w) of the grid for frames of a size."""
    scale = SHORT_SIDE / min(frame_size)
    return round(frame_size[0] * scale), round(frame_size[1] * scale)


def observe(
    frame: UInt8[np.ndarray, "h w 3"], looks: Sequence[Look | None]
) -> Observation:
    """Gather what the network sees.

    Args:
        frame: The frame.
        looks: By offset; one that is missing (None) takes what its neighbour saw.

    Raises:
        ValueError: If there is none at all.
    """
    size = grid_size(frame.shape[:2])
    small = _shrunk(frame, size)
    seen = [None if look is None else _look(small, look, frame.shape[:2]) for look in looks]
    if seen[0] is None and seen[1] is None:
        raise ValueError("a frame without flow to its neighbours: nothing to observe")
    channels, scales = [], []
    for number, offset in enumerate(OFFSETS):
        # What lies behind moves the other way; what is missing, as its twin does.
        known = seen[number] or seen[number ^ 1] or seen[number & 1] or seen[~number & 1]
        source = next(i for i, s in enumerate(seen) if s is known)
        sign = np.sign(OFFSETS[source])
        part = known[0].copy()
        part[..., :2] *= sign
        channels.append(part)
        scales.append(known[1])
        del offset
    first = 0 if seen[0] is not None else 1
    camera = seen[first][2] * np.sign(OFFSETS[first])
    return Observation(
        np.concatenate(channels, axis=-1), camera, small, np.array(scales, np.float32)
    )


def _look(
    small: Float[np.ndarray, "h w 3"], look: Look, frame_size: tuple[int, int]
) -> tuple[np.ndarray, float, np.ndarray]:
    """Return channels, scale and camera motion of one look, on the grid."""
    size = small.shape[:2]
    # Pixels of the frame -> pixels of a frame twice the grid's size.
    unit = np.array([2 * size[1] / frame_size[1], 2 * size[0] / frame_size[0]])
    flow, opposite = (
        cv2.resize(f.astype(np.float32), size[::-1], interpolation=cv2.INTER_AREA)
        * unit.astype(np.float32)
        for f in (look.flow, look.opposite)
    )
    camera = motion.background_flow(look.homography, size, frame_size)
    camera = camera * unit.astype(np.float32)
    residual = flow - camera
    x, y = np.meshgrid(*(np.arange(n, dtype=np.float32) for n in size[::-1]))
    back = cv2.remap(
        opposite,
        x + flow[..., 0] / 2,
        y + flow[..., 1] / 2,
        cv2.INTER_LINEAR,
        borderMode=cv2.BORDER_REPLICATE,
    )
    miss = np.linalg.norm(flow + back, axis=-1, keepdims=True)
    there = cv2.remap(
        _shrunk(look.other, size),
        x + camera[..., 0] / 2,
        y + camera[..., 1] / 2,
        cv2.INTER_LINEAR,
        borderMode=cv2.BORDER_CONSTANT,
        borderValue=(-1, -1, -1),
    )
    change = np.abs(there - small).mean(axis=-1, keepdims=True)
    change[there.min(axis=-1) < 0] = 0  # outside of the other frame nothing is known
    magnitude = np.linalg.norm(residual, axis=-1)
    scale = float(np.percentile(magnitude[::2, ::2], 98))
    channels = np.concatenate([residual, miss, change], axis=-1)
    return channels, max(scale, LEAST), camera


def _shrunk(
    frame: UInt8[np.ndarray, "h w 3"], size: tuple[int, int]
) -> Float[np.ndarray, "h2 w2 3"]:
    small = cv2.resize(frame, size[::-1], interpolation=cv2.INTER_AREA)
    return small.astype(np.float32) / 255


def features(
    looks: Float[Array, "b h w n*4"],
    camera: Float[Array, "b h w 2"],
    frame: Float[Array, "b h w 3"],
    scales: Float[Array, "b n"],
) -> Float[Array, "b h w k"]:
    """Scale observations to what the network reads: of the order of one everywhere."""
    parts = []
    for number in range(scales.shape[-1]):
        look = looks[..., PER_SIDE * number : PER_SIDE * (number + 1)]
        scale = scales[:, number][:, None, None, None]
        residual, miss, change = look[..., :2], look[..., 2:3], look[..., 3:4]
        size = jnp.sqrt(jnp.square(residual).sum(axis=-1, keepdims=True) + 1e-8)
        parts += [
            jnp.clip(residual / scale, -3, 3),
            jnp.log1p(size) / 2,
            jnp.tanh(miss),
            jnp.tanh(5 * change),
        ]
    scale = scales[:, 0][:, None, None, None]
    parts.append(jnp.clip(camera / scale, -3, 3))
    parts.append(jnp.broadcast_to(jnp.log(scale) / 2, (*looks.shape[:3], 1)))
    parts.append(2 * frame - 1)
    return jnp.concatenate(parts, axis=-1)
