"""Camera motion, the motion baseline, and how usable a flow field is. No learning.

The motion baseline stands beside every result: flow minus the homography that explains
most of it, magnitude, Otsu's threshold per frame. A method that cannot beat it only
copies its flow. Arrays are NumPy; nothing here knows models or annotations.
"""

import cv2
import numpy as np
from jaxtyping import Bool, Float

GRID = 32  # points a side of the lattice RANSAC sees: enough, and 10 ms
STILL = 0.25  # px: DIS and RAFT err by as much where nothing moves
DISAGREE = 0.5  # share of pixels that agree, below which flow is not trusted
REPROJECTION = 1.0  # px; 0.25 to 3 move the baseline's J by under 0.01 (DAVIS-240p)


def fit_background(
    flow: Float[np.ndarray, "h w 2"], frame_size: tuple[int, int] | None = None
) -> Float[np.ndarray, "3 3"]:
    """Fit the homography most of the frame moves by; the same flow, the same answer.

    Args:
        flow: In pixels of the frame; its grid may be coarser than the frame.
        frame_size: (h, w) of the frame; None says the grid is the frame's.

    Returns:
        Homography in pixel indices of the frame; the identity where the flow is too
        irregular for one.
    """
    h, w = flow.shape[:2]
    rows = np.unique(np.linspace(0, h - 1, GRID).round().astype(int))
    cols = np.unique(np.linspace(0, w - 1, GRID).round().astype(int))
    source = pixel_positions((h, w), frame_size)[np.ix_(rows, cols)].reshape(-1, 2)
    target = source + flow[np.ix_(rows, cols)].reshape(-1, 2).astype(np.float64)
    good = np.isfinite(target).all(axis=1)
    if good.sum() < 4:
        return np.eye(3)
    # OpenCV seeds its sampler anew on each call, so the fit is deterministic.
    homography, _ = cv2.findHomography(
        source[good], target[good], cv2.RANSAC, REPROJECTION, maxIters=2000
    )
    if homography is None or not np.isfinite(homography).all():
        return np.eye(3)
    return np.asarray(homography, np.float64)


def background_flow(
    homography: Float[np.ndarray, "3 3"],
    size: tuple[int, int],
    frame_size: tuple[int, int] | None = None,
) -> Float[np.ndarray, "h w 2"]:
    """Return the flow of a homography, in pixels of the frame, on a grid of `size`."""
    x, y = pixel_axes(size, frame_size)

    def row(a: np.ndarray) -> np.ndarray:
        return (a[0] * x)[None, :] + (a[1] * y + a[2])[:, None]

    depth = row(homography[2])
    depth = np.where(np.abs(depth) < 1e-6, 1e-6, depth)
    flow = np.empty((*size, 2), np.float32)
    flow[..., 0] = row(homography[0]) / depth - x[None, :]
    flow[..., 1] = row(homography[1]) / depth - y[:, None]
    return flow


def subtract_background(
    flow: Float[np.ndarray, "h w 2"],
    homography: Float[np.ndarray, "3 3"],
    frame_size: tuple[int, int] | None = None,
) -> Float[np.ndarray, "h w 2"]:
    """Return flow less camera motion in float32, in pixels of the frame."""
    background = background_flow(homography, flow.shape[:2], frame_size)
    return flow.astype(np.float32) - background


def motion_magnitude(
    flow: Float[np.ndarray, "h w 2"],
    homography: Float[np.ndarray, "3 3"],
    frame_size: tuple[int, int] | None = None,
) -> Float[np.ndarray, "h w"]:
    """Return how far each pixel moves against the background, in pixels."""
    return np.sqrt(_square_norm(subtract_background(flow, homography, frame_size)))


def motion_mask(
    flow: Float[np.ndarray, "h w 2"],
    homography: Float[np.ndarray, "3 3"],
    frame_size: tuple[int, int] | None = None,
) -> Bool[np.ndarray, "h w"]:
    """Return THE MOTION BASELINE: Otsu's threshold of the magnitude, per frame.

    A frame in which nothing moves against the background gives an empty mask.
    """
    magnitude = motion_magnitude(flow, homography, frame_size)
    magnitude = np.nan_to_num(magnitude, nan=0.0, posinf=0.0)
    largest = float(magnitude.max(initial=0.0))
    if largest <= 0:
        return np.zeros(magnitude.shape, bool)
    levels = np.round(magnitude * (255 / largest)).astype(np.uint8)
    threshold, _ = cv2.threshold(levels, 0, 255, cv2.THRESH_BINARY | cv2.THRESH_OTSU)
    return levels > threshold


def pixel_positions(
    size: tuple[int, int], frame_size: tuple[int, int] | None = None
) -> Float[np.ndarray, "h w 2"]:
    """Return where grid points lie, as (x, y) pixel indices of the frame."""
    return np.stack(np.meshgrid(*pixel_axes(size, frame_size)), axis=-1)


def pixel_axes(
    size: tuple[int, int], frame_size: tuple[int, int] | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """Return the x of a grid's columns and the y of its rows.

    Half-pixel centres: grid point i of n lies at (i + 0.5) * N / n - 0.5.
    """
    frame_h, frame_w = frame_size or size
    y = (np.arange(size[0]) + 0.5) * (frame_h / size[0]) - 0.5
    x = (np.arange(size[1]) + 0.5) * (frame_w / size[1]) - 0.5
    return x, y


def quality(
    flow: Float[np.ndarray, "h w 2"],
    opposite: Float[np.ndarray, "h w 2"],
    homography: Float[np.ndarray, "3 3"],
    frame_size: tuple[int, int] | None = None,
) -> dict[str, float]:
    """Return signals that warn of flow of little use; they never drop a frame.

    Args:
        flow: Flow t -> u in pixels of the frame.
        opposite: Flow u -> t on the same kind of grid.
        homography: Camera motion of `flow`.
        frame_size: (h, w) of the frame; None says the grid is the frame's.

    Returns:
        `consistent`: share of pixels whose round trip ends where it began;
        `median`, `p95`: magnitude in pixels; `camera`: share of the flow's energy a
        least-squares affine motion explains; `residual_p95`: 95th percentile of the
        magnitude against the background; and as 0.0 or 1.0, `no_motion`,
        `camera_only`, `inconsistent`.
    """
    flow, opposite = flow.astype(np.float32), opposite.astype(np.float32)
    magnitude = np.sqrt(_square_norm(flow))
    residual = float(np.percentile(motion_magnitude(flow, homography, frame_size), 95))
    consistent = float(consistency(flow, opposite, frame_size).mean())
    camera = affine_share(flow)
    return {
        "consistent": consistent,
        "median": float(np.median(magnitude)),
        "p95": float(np.percentile(magnitude, 95)),
        "camera": camera,
        "residual_p95": residual,
        "no_motion": float(np.percentile(magnitude, 95) < STILL),
        "camera_only": float(
            residual < STILL and np.percentile(magnitude, 95) >= STILL
        ),
        "inconsistent": float(consistent < DISAGREE),
    }


def consistency(
    flow: Float[np.ndarray, "h w 2"],
    opposite: Float[np.ndarray, "h w 2"],
    frame_size: tuple[int, int] | None = None,
) -> Bool[np.ndarray, "h w"]:
    """Tell where flow and opposite flow cancel (Sundaram et al., ECCV 2010).

    |f + g(p + f)|^2 < 0.01 (|f|^2 + |g|^2) + 0.5, in pixels; False outside the frame.
    """
    h, w = flow.shape[:2]
    frame_h, frame_w = frame_size or (h, w)
    step = np.float32(w / frame_w), np.float32(h / frame_h)  # grid points a pixel
    x = np.arange(w, dtype=np.float32)[None, :] + flow[..., 0] * step[0]
    y = np.arange(h, dtype=np.float32)[:, None] + flow[..., 1] * step[1]
    inside = (x >= 0) & (x <= w - 1) & (y >= 0) & (y <= h - 1)
    there = cv2.remap(opposite, x, y, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
    gap = _square_norm(flow + there)
    bound = 0.01 * (_square_norm(flow) + _square_norm(there)) + 0.5
    return inside & (gap < bound)


def affine_share(flow: Float[np.ndarray, "h w 2"]) -> float:
    """Return the share of the flow's energy an affine motion explains, 0..1.

    1.0 for no motion at all: nothing is left to explain.
    """
    h, w = flow.shape[:2]
    energy = float(np.square(flow, dtype=np.float64).sum())
    if energy == 0.0:
        return 1.0
    # On a grid 1, x and y are orthogonal once centred: three projections add up.
    x, y = np.arange(w) - (w - 1) / 2, np.arange(h) - (h - 1) / 2
    columns, rows = flow.sum(0, dtype=np.float64), flow.sum(1, dtype=np.float64)
    explained = np.square(rows.sum(0)) / (h * w)
    explained += np.square(x @ columns) / max(h * np.square(x).sum(), 1e-9)
    explained += np.square(y @ rows) / max(w * np.square(y).sum(), 1e-9)
    return float(explained.sum() / energy)


def _square_norm(flow: Float[np.ndarray, "h w 2"]) -> Float[np.ndarray, "h w"]:
    return np.einsum("hwk,hwk->hw", flow, flow)
