"""Losses, paper Sec. 3.2-3.3, equations 6, 8, 9 and their variants: pure functions.

Every loss is a mean, so values do not depend on batch size or resolution.
"""

from typing import Literal

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

LossKind = Literal["l1", "robust", "l2"]


def motion_loss(
    flow: Float[Array, "b h w 2"],
    reconstruction: Float[Array, "b h w 2"],
    kind: LossKind = "l1",
) -> Float[Array, ""]:
    """Compare reconstructed with observed flow (equation 6).

    Args:
        flow: Observed flow after clamping, pixels.
        reconstruction: P + R of equation 5.
        kind: "l1", pixels (the paper's); "robust", `mean (|d| + 0.01)^0.4` (its
            ablation); "l2", `mean d^2`, pixels^2 (Guess What Moves).
    """
    difference = jnp.abs(flow - reconstruction)
    if kind == "robust":
        difference = (difference + 0.01) ** 0.4
    if kind == "l2":
        difference = jnp.square(difference)
    return difference.mean()


def appearance_loss(
    mask: Float[Array, "*b h w"],
    target: Float[Array, "*b h w"],
    positive_weight: float = 1.0,
    negative_weight: float = 1.0,
) -> Float[Array, ""]:
    """Pull the object mask to its refined target (equation 8).

    The part where the target lies above the mask is weighted by `positive_weight`, the
    rest by `negative_weight` (1 and 1 give equation 8 as printed; RCF has 2 and 1).
    """
    difference = target - mask
    above = jnp.square(jnp.maximum(difference, 0.0)).mean()
    below = jnp.square(jnp.minimum(difference, 0.0)).mean()
    return positive_weight * above + negative_weight * below


def photometric_loss(
    image: Float[Array, "b h w k"],
    reconstruction: Float[Array, "b h w k"],
    ssim_share: float = 0.85,
) -> Float[Array, ""]:
    """Compare a frame with the other one warped to it (AMD's loss).

    Args:
        image: Frame, levels in [0, 1].
        reconstruction: The warped one.
        ssim_share: Weight of `(1 - SSIM) / 2`; the rest is the mean absolute error.
    """
    error = jnp.abs(image - reconstruction).mean()
    unlike = (1.0 - ssim(image, reconstruction).mean()) / 2.0
    return ssim_share * unlike + (1.0 - ssim_share) * error


def ssim(
    a: Float[Array, "b h w k"], b: Float[Array, "b h w k"]
) -> Float[Array, "b h2 w2 k"]:
    """Structural similarity of images in [0, 1], over windows of 3x3 inside them.

    Wang et al., *Image Quality Assessment*, 2004, equation 13, with its constants.
    """
    brightness, contrast = 0.01**2, 0.03**2

    def mean(x: Array) -> Array:
        # Sums of slices: XLA on a CPU is slow at a pooling window.
        rows = x[:, :-2] + x[:, 1:-1] + x[:, 2:]
        return (rows[:, :, :-2] + rows[:, :, 1:-1] + rows[:, :, 2:]) / 9.0

    mean_a, mean_b = mean(a), mean(b)
    # Variances about the windows' means; never below zero by rounding.
    var_a = jnp.maximum(mean(a * a) - mean_a**2, 0.0)
    var_b = jnp.maximum(mean(b * b) - mean_b**2, 0.0)
    covariance = mean(a * b) - mean_a * mean_b
    return ((2 * mean_a * mean_b + brightness) * (2 * covariance + contrast)) / (
        (mean_a**2 + mean_b**2 + brightness) * (var_a + var_b + contrast)
    )


def entropy(masks: Float[Array, "*b c"]) -> Float[Array, ""]:
    """Mean entropy of the masks over pixels, nats (zero-safe)."""
    safe = jnp.where(masks > 0, masks, 1.0)
    return -(masks * jnp.log(safe)).sum(axis=-1).mean()


def entropy_rcf(masks: Float[Array, "*b c"]) -> Float[Array, ""]:
    """Return RCF's entropy term, which applies log-softmax to masks, not logits.

    Kept for parity with the authors' checkpoints; `entropy` is what was meant.
    """
    return -(masks * jax.nn.log_softmax(masks, axis=-1)).sum(axis=-1).mean()


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
