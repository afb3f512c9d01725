"""RAFT's correlation: all pairs of features at four resolutions, read by windows.

Teed & Deng, ECCV 2020, Sec. 3.2. Two ways to the same numbers: a volume of all pairs,
fast, whose memory grows with the square of the pixels; or products on demand, for
frames whose volume would not fit.

The second frame's features are pooled instead of the volume (pooling is linear), and
bordered with zeros as wide as a window, so that a window is one slice: what lies
outside the frame reads as zero, as in the official code.
"""

from typing import Literal

import jax
import jax.numpy as jnp
from flax import struct
from jaxtyping import Array, Float

LEVELS = 4

Method = Literal["volume", "on_demand"]


@struct.dataclass
class Correlation:
    """A pyramid that can be read at any position.

    Axes of a level are (x, y): that is the order of the official window's channels.

    Attributes:
        levels: Of a volume, `(b, h * w, wl + 2 * m, hl + 2 * m)` each; on demand, the
            second frame's features `(b, wl + 2 * m, hl + 2 * m, d)`. The margin `m` is
            the side of a slice, `2 * radius + 2`.
        features: The first frame's features, scaled; None with a volume.
        radius: Of the window.
    """

    levels: tuple[Array, ...]
    features: Float[Array, "b h w d"] | None
    radius: int = struct.field(pytree_node=False)


def build(
    features0: Float[Array, "b h w d"],
    features1: Float[Array, "b h w d"],
    radius: int,
    method: Method,
) -> Correlation:
    """Prepare the correlation of every pixel of frame 0 with frame 1."""
    b, h, w, d = features0.shape
    features0 = features0 / jnp.sqrt(jnp.asarray(d, features0.dtype))
    level, levels = jnp.swapaxes(features1, 1, 2), []
    margin = 2 * radius + 2
    for _ in range(LEVELS):
        border = ((0, 0), (margin, margin), (margin, margin), (0, 0))
        levels.append(jnp.pad(level, border))
        level = halve(level)
    if method == "on_demand":
        return Correlation(tuple(levels), features0, radius)
    queries = features0.reshape(b, h * w, d)
    volume = (jnp.einsum("bnd,bxyd->bnxy", queries, level) for level in levels)
    return Correlation(tuple(volume), None, radius)


def read(
    correlation: Correlation, position: Float[Array, "b h w 2"]
) -> Float[Array, "b h w k"]:
    """Read a window around (x, y) pixel positions from every level.

    Returns:
        Levels, then the window's x, then its y: `4 * (2 * radius + 1)^2` channels.
    """
    if correlation.features is None:
        return _read_volume(correlation, position)

    def row(args: tuple[Array, Array]) -> Array:
        features, position = args
        return _read_features(correlation, features, position)

    # One row of pixels at a time: the slices of all of them would not fit either.
    rows = (jnp.swapaxes(correlation.features, 0, 1), jnp.swapaxes(position, 0, 1))
    return jnp.swapaxes(jax.lax.map(row, rows), 0, 1)


def volume_bytes(h: int, w: int, radius: int) -> int:
    """Return the bytes of one direction's float32 volume at `h x w` features."""
    margin = 2 * (2 * radius + 2)
    sides = ((h >> i, w >> i) for i in range(LEVELS))
    return 4 * h * w * sum((hl + margin) * (wl + margin) for hl, wl in sides)


def halve(features: Float[Array, "b h w d"]) -> Float[Array, "b h2 w2 d"]:
    """Average 2x2 pixels; an odd last row or column is dropped."""
    b, h, w, d = features.shape
    even = features[:, : h // 2 * 2, : w // 2 * 2]
    return even.reshape(b, h // 2, 2, w // 2, 2, d).mean(axis=(2, 4))


def _read_volume(correlation: Correlation, position: Array) -> Array:
    """Slice every pixel's own map of frame 1."""
    b, h, w, _ = position.shape
    flat = position.reshape(b * h * w, 2)
    windows = []
    for i, level in enumerate(correlation.levels):
        maps = level.reshape(b * h * w, *level.shape[2:])
        start, fraction = _start(flat / 2**i, level.shape[2:], correlation.radius)
        side = 2 * correlation.radius + 2
        slices = jax.vmap(
            lambda image, s, side=side: jax.lax.dynamic_slice(image, s, (side, side))
        )(maps, start)
        windows.append(_interpolate(slices, fraction).reshape(b, h, w, -1))
    return jnp.concatenate(windows, axis=-1)


def _read_features(
    correlation: Correlation,
    features: Float[Array, "b w d"],
    position: Float[Array, "b w 2"],
) -> Float[Array, "b w k"]:
    """Multiply each pixel's features with a slice of frame 1's."""
    side, d = 2 * correlation.radius + 2, features.shape[-1]
    windows = []
    for i, level in enumerate(correlation.levels):
        start, fraction = _start(position / 2**i, level.shape[1:3], correlation.radius)

        def one(image: Array, start: Array) -> Array:
            corner = (start[0], start[1], 0)
            return jax.lax.dynamic_slice(image, corner, (side, side, d))

        slices = jax.vmap(jax.vmap(one, in_axes=(None, 0)))(level, start)
        products = jnp.einsum("bwd,bwxyd->bwxy", features, slices)
        window = _interpolate(products, fraction)
        windows.append(window.reshape(*window.shape[:2], -1))
    return jnp.concatenate(windows, axis=-1)


def _start(
    position: Float[Array, "*n 2"], shape: tuple[int, ...], radius: int
) -> tuple[Array, Float[Array, "*n 2"]]:
    """Return a slice's first index in a bordered level, and the fraction beyond it.

    A window wholly outside is moved into the border, where it reads zeros as well.
    """
    side = 2 * radius + 2
    whole = jnp.floor(position)
    last = jnp.asarray([shape[0] - side, shape[1] - side], whole.dtype)
    last = last.reshape((1,) * (whole.ndim - 1) + (2,))
    start = jnp.clip(whole - radius + side, 0, last)
    return start.astype(jnp.int32), position - whole


def _interpolate(
    slices: Float[Array, "*n s s"], fraction: Float[Array, "*n 2"]
) -> Float[Array, "*n t t"]:
    """Blend neighbours: all points of a window share one fraction."""
    x, y = fraction[..., 0, None, None], fraction[..., 1, None, None]
    rows = slices[..., :-1, :] * (1 - x) + slices[..., 1:, :] * x
    return rows[..., :-1] * (1 - y) + rows[..., 1:] * y
