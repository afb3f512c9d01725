"""Frozen features without weights: what the semantic judge uses when there are none.

Equations 10 and 13 need features that agree within an object and differ outside it.
Without a self-supervised network, local colour and texture do: each function here
describes a frame by itself, needs no learning, no flow and no download. Features are
standardised over the frame, so a cosine above 0 means "more alike than two average
pixels". Pure NumPy; which is best is measured in benchmarks/alignment.py and tuner.py.
"""

from collections.abc import Callable

import cv2
import numpy as np
from jaxtyping import Float, Integer, UInt8
from PIL import Image
from skimage import feature, segmentation

STRIDE = 4  # pixels a step of a feature grid spans, unless a docstring says otherwise

# Side of the window statistics are taken over, as a share of the short side. Ours: the
# best of 0.07 .. 0.27 on DAVIS-240p, with 64 colours the best of 16 .. 128.
WINDOW = 0.2
COLOURS = 64


def palette(frame: UInt8[np.ndarray, "h w 3"]) -> Float[np.ndarray, "hu wu k"]:
    """Describe pixels by the colours around them: shares of the frame's own palette."""
    image = Image.fromarray(frame)
    index = np.asarray(image.quantize(COLOURS, method=Image.Quantize.FASTOCTREE))
    return standardize(np.sqrt(local_shares(index, COLOURS)))


def superpixels(frame: UInt8[np.ndarray, "h w 3"]) -> Float[np.ndarray, "hu wu k"]:
    """Describe superpixels by mean and spread of colour, and by texture."""
    lab = cv2.cvtColor(frame.astype(np.float32) / 255, cv2.COLOR_RGB2LAB)
    lab = lab.astype(np.float64)  # a variance is a small difference of large numbers
    # Smoothed, for on noisy frames SLIC falls apart into specks and merges them all.
    label = segmentation.slic(frame, 200, compactness=10, sigma=1, start_label=0)
    pattern = patterns(cv2.cvtColor(frame, cv2.COLOR_RGB2GRAY), 1)
    mean = _segment_means(lab, label)
    spread = np.sqrt(np.maximum(_segment_means(lab * lab, label) - mean * mean, 0))
    shares = np.sqrt(_segment_means(np.eye(10, dtype=np.float32)[pattern], label))
    at = label[STRIDE // 2 :: STRIDE, STRIDE // 2 :: STRIDE]
    # Each group counts by its mean square, not by how many numbers it has.
    groups = [np.concatenate([mean, spread], axis=-1)[at], shares[at]]
    scaled = [standardize(group) / group.shape[-1] ** 0.5 for group in groups]
    return np.concatenate(scaled, axis=-1)


LOCAL: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "palette": palette,
    "superpixels": superpixels,
}


def standardize(
    features: Float[np.ndarray, "hu wu k"],
) -> Float[np.ndarray, "hu wu k"]:
    """Give every feature mean 0 and variance 1 over the frame; constants go to 0."""
    centred = features - features.mean(axis=(0, 1))
    return (centred / (centred.std(axis=(0, 1)) + 1e-3)).astype(np.float32)


def local_shares(
    index: Integer[np.ndarray, "h w"], kinds: int
) -> Float[np.ndarray, "hu wu kinds"]:
    """Return the share of each kind of pixel in a window around each grid point."""
    h, w = index.shape
    grid = (max(w // STRIDE, 1), max(h // STRIDE, 1))
    # One kind at a time: OpenCV averages areas of four channels at most.
    small = [
        cv2.resize(
            (index == kind).astype(np.float32), grid, interpolation=cv2.INTER_AREA
        )
        for kind in range(kinds)
    ]
    side = max(round(WINDOW * min(h, w) / STRIDE), 1)
    return cv2.blur(np.stack(small, axis=-1), (side, side))


def patterns(grey: UInt8[np.ndarray, "h w"], radius: int) -> Integer[np.ndarray, "h w"]:
    """Return each pixel's rotation-invariant uniform local binary pattern, 0..9."""
    padded = np.pad(grey, radius, mode="reflect")
    pattern = feature.local_binary_pattern(padded, 8, radius, "uniform").astype(int)
    return pattern[radius:-radius, radius:-radius]


def _segment_means(
    values: Float[np.ndarray, "h w k"], label: Integer[np.ndarray, "h w"]
) -> Float[np.ndarray, "s k"]:
    flat = label.ravel()
    count = np.bincount(flat)
    sums = [np.bincount(flat, values[..., i].ravel()) for i in range(values.shape[-1])]
    return np.stack(sums, axis=-1) / np.maximum(count, 1)[:, None]
