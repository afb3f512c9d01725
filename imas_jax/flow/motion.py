"""Camera motion, the motion baseline, and how usable a flow field is. No learning.

The motion baseline stands beside every result: flow minus the homography that explains
most of it, magnitude, Otsu's threshold per frame. A method that cannot beat it only
copies its flow. Arrays are NumPy; nothing here knows models or annotations.
"""

import cv2
import numpy as np
from jaxtyping import Bool, Float

GRID = 32  # points a side of the lattice RANSAC sees: enough, and 10 ms
REPROJECTION = 1.0  # px a background point may be off; ours, best of 0.5 .. 3 on DAVIS


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
    position = pixel_positions(size, frame_size)
    homogeneous = np.concatenate([position, np.ones((*size, 1))], axis=-1)
    moved = homogeneous @ homography.T
    depth = moved[..., 2:]
    depth = np.where(np.abs(depth) < 1e-6, 1e-6, depth)
    return (moved[..., :2] / depth - position).astype(np.float32)


def motion_magnitude(
    flow: Float[np.ndarray, "h w 2"],
    homography: Float[np.ndarray, "3 3"],
    frame_size: tuple[int, int] | None = None,
) -> Float[np.ndarray, "h w"]:
    """Return how far each pixel moves against the background, in pixels."""
    background = background_flow(homography, flow.shape[:2], frame_size)
    return np.linalg.norm(flow.astype(np.float32) - background, axis=-1)


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
    """Return where grid points lie, as (x, y) pixel indices of the frame.

    Half-pixel centres: grid point i of n lies at (i + 0.5) * N / n - 0.5.
    """
    frame_h, frame_w = frame_size or size
    y = (np.arange(size[0]) + 0.5) * (frame_h / size[0]) - 0.5
    x = (np.arange(size[1]) + 0.5) * (frame_w / size[1]) - 0.5
    return np.stack(np.meshgrid(x, y), axis=-1)
