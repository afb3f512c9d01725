"""Flow composition, paper Sec. 3.2, equations 1-5: pure functions of masks and flow.

Masks pool the flow to one vector a channel (piecewise-constant pathway); a bounded
per-pixel residual carries what a constant cannot (residual pathway). Nothing here
owns parameters: the learned phi_1 and phi_2 come in as functions.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from imas_jax import geometry

Pointwise = Callable[[Array], Array]

# Accelerators would otherwise round flow to ten or fewer bits inside a product.
EXACT = jax.lax.Precision.HIGHEST


def pool_by_mask(
    features: Float[Array, "b h w k"], masks: Float[Array, "b h w c"]
) -> Float[Array, "b c k"]:
    """Average features over each soft mask (equation 1, the inner quotient).

    A channel that is zero everywhere gets the zero vector, not NaN; for any other the
    quotient is exact (no epsilon), as in the authors' code.
    """
    mass = masks.sum(axis=(1, 2))
    total = jnp.einsum("bhwk,bhwc->bck", features, masks, precision=EXACT)
    safe = jnp.where(mass > 0, mass, 1.0)
    return jnp.where((mass > 0)[..., None], total / safe[..., None], 0.0)


def piecewise_constant(
    flow: Float[Array, "b h w 2"],
    masks: Float[Array, "b h w c"],
    phi_1: Pointwise,
    phi_2: Pointwise,
) -> tuple[Float[Array, "b h w 2"], Float[Array, "b c 2"]]:
    """Explain flow by one vector a channel (equations 1 and 2).

    Args:
        flow: Observed flow, pixels.
        masks: Soft masks, sum 1 over channels.
        phi_1: Acts on the flow map before pooling, `(b, h, w, 2) -> (b, h, w, k)`.
        phi_2: Acts on the pooled vectors, `(b, c, k) -> (b, c, 2)`.

    Returns:
        The composed map P and the channel vectors v.
    """
    vectors = phi_2(pool_by_mask(phi_1(flow), masks))
    return compose(masks, vectors[:, None, None]), vectors


def compose(
    masks: Float[Array, "b h w c"], flows: Float[Array, "b #h #w c 2"]
) -> Float[Array, "b h w 2"]:
    """Sum per-channel flows weighted by the masks (equations 2 and 4)."""
    return (masks[..., None] * flows).sum(axis=-2)


def hold_first(vectors: Float[Array, "b c 2"]) -> Float[Array, "b c 2"]:
    """Set the first channel's motion to zero (ours, not the paper's).

    With flow less camera motion the first channel then is the background in every clip:
    nothing else keeps channels from changing roles between clips of a short training.
    """
    return vectors.at[:, 0].set(0.0)


def split_channels(maps: Float[Array, "b h w k"], n: int) -> Float[Array, "b h w c n"]:
    """Read a head's component-major output as n components for each channel."""
    *lead, width = maps.shape
    return jnp.moveaxis(maps.reshape(*lead, n, width // n), -2, -1)


def bounded_residual(
    maps: Float[Array, "b h w k"], bound: float, divisor: float
) -> Float[Array, "b h w c 2"]:
    """Squash residual maps to at most `bound` pixels (equation 3).

    Args:
        maps: Output of the residual head at mask resolution, component-major.
        bound: lambda, pixels; negative means unbounded (no tanh, no division).
        divisor: d, keeps the start small.
    """
    residual = split_channels(maps, 2)
    if bound < 0:
        return residual
    return bound * jnp.tanh(residual / divisor)


def scaling_residual(
    maps: Float[Array, "b h w k"], vectors: Float[Array, "b c 2"], divisor: float
) -> Float[Array, "b h w c 2"]:
    """Return what per-pixel scaling adds to each channel's vector (paper Tab. 4).

    Every component of v_c is multiplied by its own factor in (0, 2), which starts near
    1; the paper gives no formula, so bound and form are ours.

    Args:
        maps: Output of the residual head at mask resolution, component-major.
        vectors: Channel vectors v of equation 1, pixels.
        divisor: d of equation 3, keeps the start small.
    """
    return jnp.tanh(split_channels(maps, 2) / divisor) * vectors[:, None, None]


def clamp_flow(flow: Float[Array, "*b 2"], limit: float) -> Float[Array, "*b 2"]:
    """Clip both components to [-limit, limit] pixels; the loss compares with this.

    A limit of 0 leaves the flow as it is.
    """
    return jnp.clip(flow, -limit, limit) if limit > 0 else flow


def affine_residual(
    flow: Float[Array, "b h w 2"], masks: Float[Array, "b h w c"]
) -> Float[Array, "b h w 2"]:
    """Add an affine motion of each channel about its own centre (paper Tab. 4).

    Each channel's flow is fitted by weighted least squares as an affine map of pixel
    coordinates, with the mask as weights; the fit's mean over the mask is removed,
    since the piecewise-constant pathway carries it. A channel too small to determine
    a map (empty, one pixel, one line) gets none.

    Args:
        flow: Clamped flow, pixels.
        masks: Soft masks of the same grid.
    """
    b, h, w, _ = flow.shape
    grid = geometry.pixel_grid(h, w).astype(flow.dtype)[None]
    centre = pool_by_mask(jnp.broadcast_to(grid, (b, h, w, 2)), masks)
    offset = grid[:, :, :, None] - centre[:, None, None]
    moment = jnp.einsum(
        "bhwc,bhwci,bhwcj->bcij", masks, offset, offset, precision=EXACT
    )
    # The offsets' weighted mean is zero, so the flow's mean drops out by itself.
    mixed = jnp.einsum("bhwc,bhwci,bhwj->bcij", masks, offset, flow, precision=EXACT)
    return compose(
        masks, jnp.einsum("bhwci,bcij->bhwcj", offset, _solve(moment, mixed))
    )


def _solve(
    matrix: Float[Array, "*b 2 2"], right: Float[Array, "*b 2 2"]
) -> Float[Array, "*b 2 2"]:
    """Solve symmetric 2x2 systems; a (nearly) singular one gives zeros."""
    a, b, d = matrix[..., 0, 0], matrix[..., 0, 1], matrix[..., 1, 1]
    determinant = a * d - b * b
    sound = determinant > jnp.finfo(matrix.dtype).eps * (a * d)
    safe = jnp.where(sound, determinant, 1.0)[..., None]
    first = (d[..., None] * right[..., 0, :] - b[..., None] * right[..., 1, :]) / safe
    second = (a[..., None] * right[..., 1, :] - b[..., None] * right[..., 0, :]) / safe
    return jnp.where(sound[..., None, None], jnp.stack([first, second], -2), 0.0)
