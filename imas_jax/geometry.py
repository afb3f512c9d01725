"""Resampling with an explicit corner rule; no antialias but where it is averaged.

`jax.image.resize` antialiases when it shrinks, the method does not (paper code:
`torch.nn.functional.interpolate`), so resizing is written here as two small matrix
products: exact, differentiable, and fast on every backend.
"""

from typing import Literal

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

Corners = Literal["half_pixel", "align_corners"]


def resize_matrix(
    size_in: int, size_out: int, corners: Corners = "half_pixel"
) -> np.ndarray:
    """Build the `(size_out, size_in)` float64 matrix of 1-D bilinear resampling."""
    low, high, weight = taps(size_in, size_out, corners)
    matrix = np.zeros((size_out, size_in))
    rows = np.arange(size_out)
    np.add.at(matrix, (rows, low), 1.0 - weight)
    np.add.at(matrix, (rows, high), weight)
    return matrix


def taps(
    size_in: int, size_out: int, corners: Corners = "half_pixel"
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return the two samples behind each point of 1-D bilinear resampling.

    Indices of the lower and the upper sample, and the upper one's weight (float64).
    """
    position = np.arange(size_out, dtype=np.float64)
    if corners == "align_corners":
        position = position * ((size_in - 1) / max(size_out - 1, 1))
    else:
        position = np.maximum((position + 0.5) * (size_in / size_out) - 0.5, 0.0)
    low = np.minimum(np.floor(position).astype(int), size_in - 1)
    return low, np.minimum(low + 1, size_in - 1), position - low


def resize(
    image: Float[Array, "*b h w k"],
    size: tuple[int, int],
    corners: Corners = "half_pixel",
) -> Float[Array, "*b h2 w2 k"]:
    """Resize bilinearly to `size = (h2, w2)` without antialias."""
    h, w = image.shape[-3:-1]
    if (h, w) == tuple(size):
        return image
    rows = jnp.asarray(resize_matrix(h, size[0], corners), image.dtype)
    cols = jnp.asarray(resize_matrix(w, size[1], corners), image.dtype)
    # HIGHEST: accelerators would otherwise round resampled flow to bfloat16.
    return jnp.einsum(
        "ih,...hwk,jw->...ijk",
        rows,
        image,
        cols,
        precision=jax.lax.Precision.HIGHEST,
    )


def pixel_grid(h: int, w: int) -> Float[Array, "h w 2"]:
    """Return the (x, y) index of every pixel centre."""
    x, y = jnp.meshgrid(jnp.arange(w, dtype=float), jnp.arange(h, dtype=float))
    return jnp.stack([x, y], axis=-1)


def sample_bilinear(
    image: Float[Array, "h w k"], position: Float[Array, "*n 2"]
) -> Float[Array, "*n k"]:
    """Read an image at (x, y) pixel indices; beyond the border the edge repeats."""
    h, w = image.shape[:2]
    x = jnp.clip(position[..., 0], 0, w - 1)
    y = jnp.clip(position[..., 1], 0, h - 1)
    x0 = jnp.clip(jnp.floor(x), 0, max(w - 2, 0)).astype(jnp.int32)
    y0 = jnp.clip(jnp.floor(y), 0, max(h - 2, 0)).astype(jnp.int32)
    x1, y1 = jnp.minimum(x0 + 1, w - 1), jnp.minimum(y0 + 1, h - 1)
    a, b = (x - x0)[..., None], (y - y0)[..., None]
    top = image[y0, x0] * (1 - a) + image[y0, x1] * a
    bottom = image[y1, x0] * (1 - a) + image[y1, x1] * a
    return top * (1 - b) + bottom * b


def warp(
    image: Float[Array, "h w k"], flow: Float[Array, "h w 2"]
) -> Float[Array, "h w k"]:
    """Bring frame t+1 onto frame t's grid with the flow t -> t+1 (same resolution)."""
    return sample_bilinear(image, pixel_grid(*flow.shape[:2]) + flow)


def halve(maps: Float[Array, "b h w k"]) -> Float[Array, "b h2 w2 k"]:
    """Average over squares of 2x2; an odd last row or column is left out."""
    b, h, w, k = maps.shape
    even = maps[:, : h // 2 * 2, : w // 2 * 2]
    return even.reshape(b, h // 2, 2, w // 2, 2, k).mean(axis=(2, 4))
