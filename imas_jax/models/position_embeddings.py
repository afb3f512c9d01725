"""Position embeddings of Vision Transformers: resized officially, and recognised."""

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Shaped

OFFSET = 0.1  # added to the grid when embeddings are resized, officially


def resize(
    table: Float[Array, "m m d"], grid: tuple[int, int], antialias: bool = False
) -> Float[Array, "hp wp d"]:
    """Resize position embeddings bicubically, as both official codes have torch do it.

    Args:
        table: Of the learned grid.
        grid: (h, w) in patches.
        antialias: As DINOv2 does it in networks with registers: widths of the kernel
            follow the scale, which is that of the sizes. The others add `OFFSET` to the
            grid in the scale, and do not antialias.
    """
    side = table.shape[0]
    make = _antialiased_matrix if antialias else _offset_matrix
    rows, columns = (jnp.asarray(make(side, n), table.dtype) for n in grid)
    return jnp.einsum(
        "iy,yxd,jx->ijd", rows, table, columns, precision=jax.lax.Precision.HIGHEST
    )


def are_sines(table: Shaped[np.ndarray, "*shape"]) -> bool:
    """Tell whether a stored table is one of fixed sines and cosines (MoCo v3's).

    Theirs has a quarter of sines and one of cosines of each axis, and zeros for the
    class token. What was learned never has all squares of such pairs sum up to 1.
    """
    if table.ndim != 3 or table.shape[-1] % 4 or table.dtype.kind != "f":
        return False
    sine_x, cosine_x, sine_y, cosine_y = np.split(table[0].astype(np.float64), 4, -1)
    one = np.stack([sine_x**2 + cosine_x**2, sine_y**2 + cosine_y**2])
    return len(table[0]) > 1 and bool(np.allclose(one[:, 1:], 1.0, atol=1e-3))


def _offset_matrix(size_in: int, size_out: int) -> np.ndarray:
    """Return torch's bicubic matrix for a given scale: A = -0.75, the edge repeats."""
    place = (np.arange(size_out) + 0.5) * size_in / (size_out + OFFSET) - 0.5
    low = np.floor(place).astype(int)
    matrix = np.zeros((size_out, size_in))
    for tap in (-1, 0, 1, 2):
        weight = _cubic(place - (low + tap), -0.75)
        column = np.clip(low + tap, 0, size_in - 1)
        np.add.at(matrix, (np.arange(size_out), column), weight)
    return matrix


def _antialiased_matrix(size_in: int, size_out: int) -> np.ndarray:
    """Return torch's antialiased one: A = -0.5, cut at the border and normalised."""
    scale = size_in / size_out
    centre = (np.arange(size_out) + 0.5) * scale
    distance = np.arange(size_in) + 0.5 - centre[:, None]
    matrix = _cubic(distance / max(scale, 1.0), -0.5)
    return matrix / matrix.sum(axis=1, keepdims=True)


def _cubic(x: np.ndarray, a: float) -> np.ndarray:
    """Return Keys's kernel of parameter `a`."""
    x = np.abs(x)
    near = ((a + 2) * x - (a + 3)) * x * x + 1
    far = ((a * x - 5 * a) * x + 8 * a) * x - 4 * a
    return np.where(x <= 1, near, np.where(x < 2, far, 0.0))
