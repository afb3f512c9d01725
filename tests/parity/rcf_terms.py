"""Terms of RCF that no recipe of IMAS has, held to the authors' numbers all the same.

The folder of numbers has them, and whoever tries one begins with a proven one.
"""

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

# Affinity of RCF's normalised cut: 1 above this cosine, else next to nothing.
_CUT_THRESHOLD, _CUT_FLOOR = 0.2, 1e-5


def sharpening_rcf(masks: Float[Array, "*b c"], temperature: float) -> Float[Array, ""]:
    """Pull masks to a sharper copy of themselves (RCF, an alternative to its entropy).

    Like `entropy_rcf` it compares with the log-softmax of masks, as the authors do.

    Args:
        masks: Soft masks.
        temperature: Of the copy, `masks^(1/temperature)` normalised; RCF 0.25.
    """
    sharp = jax.lax.stop_gradient(masks) ** (1.0 / temperature)
    sharp = sharp / sharp.sum(axis=-1, keepdims=True)
    log_sharp = jnp.log(jnp.where(sharp > 0, sharp, 1.0))
    return (sharp * (log_sharp - jax.nn.log_softmax(masks, axis=-1))).mean()


def compactness(mask: Float[Array, "*b h w"]) -> Float[Array, ""]:
    """Mean squared distance of a mask's mass from its centre (RCF, on SegTrackv2).

    Coordinates run from 0 to 1 over the map; the mean is over all pixels.
    """
    h, w = mask.shape[-2:]
    y = (jnp.arange(h, dtype=mask.dtype) / h)[:, None]
    x = (jnp.arange(w, dtype=mask.dtype) / w)[None]
    mass = mask.sum(axis=(-2, -1), keepdims=True)
    safe = jnp.where(mass > 0, mass, 1.0)
    spread = jnp.zeros_like(mask)
    for axis in (y, x):
        grid = jnp.broadcast_to(axis, mask.shape)
        centre = (mask * grid).sum(axis=(-2, -1), keepdims=True) / safe
        spread = spread + jnp.square(grid - centre)
    return (mask * spread).mean()


def normalized_cut(
    features: Float[np.ndarray, "h w k"],
    mask: Float[np.ndarray, "h w"],
    threshold: float = _CUT_THRESHOLD,
) -> float:
    """Cost of cutting a soft mask out of the graph of feature affinities (RCF).

    RCF's judge is minus this, in place of equation 13. Takes memory of (h w)^2. An
    empty or full mask cuts nothing and gets 2, the cost of the worst cut.
    """
    inside = mask.ravel().astype(np.float64)
    outside = 1.0 - inside
    if not inside.any() or not outside.any():
        return 2.0
    flat = features.reshape(-1, features.shape[-1])
    norms = np.maximum(np.linalg.norm(flat, axis=-1, keepdims=True), 1e-12)
    flat = flat / norms
    affinity = np.where(flat @ flat.T > threshold, 1.0, _CUT_FLOOR)
    cut = outside @ affinity @ inside
    degree = affinity.sum(axis=0)
    return float(cut / (degree @ inside) + cut / (degree @ outside))
