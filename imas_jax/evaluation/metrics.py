"""Region overlap J and boundary accuracy F of binary masks, and their statistics.

The official DAVIS-2016 definitions (Perazzi et al., CVPR 2016; `db_eval_iou`,
`db_eval_boundary`, `db_statistics`), to the last digit, degenerate masks included
(FACTS.md, "Evaluation"; tests/parity). Which frames are averaged, and how, is
`evaluation/protocol.py`.

Made quick by looking only at the box that holds both objects, and by working on 64
pixels at a time: masks are packed into bits, so that finding boundaries and widening
them is a few shifts of long words.
"""

import dataclasses
import math
from collections.abc import Sequence

import cv2
import numpy as np
from jaxtyping import Bool, Float, UInt8, UInt64

# Boundary tolerance as a share of the image diagonal: 8 px at 854x480.
TOLERANCE = 0.008

ONE, LAST = np.uint64(1), np.uint64(63)  # a bit's distance to the next, and to the last


@dataclasses.dataclass(frozen=True)
class Statistics:
    """Of one sequence's per-frame values; NaN where no frame was scored.

    Attributes:
        mean: Mean over frames.
        recall: Share of frames above 0.5.
        decay: Mean of the first quarter minus mean of the last quarter.
    """

    mean: float
    recall: float
    decay: float


def jaccard(
    prediction: Bool[np.ndarray, "h w"], truth: Bool[np.ndarray, "h w"]
) -> float:
    """Return intersection over union, in [0, 1]; two empty masks score 1.

    Raises:
        ValueError: If the masks differ in size or are not boolean.
    """
    _check(prediction, truth)
    both = np.count_nonzero(prediction & truth)
    union = np.count_nonzero(prediction) + np.count_nonzero(truth) - both
    return both / union if union else 1.0


def boundary_f(
    prediction: Bool[np.ndarray, "h w"],
    truth: Bool[np.ndarray, "h w"],
    tolerance: float = TOLERANCE,
) -> float:
    """Return the F measure of boundary precision and recall, in [0, 1].

    A mask without boundary (empty, or the whole frame) gives precision 1, recall 0 as
    a prediction, and the reverse as truth; two such masks score 1.

    Args:
        prediction: The mask to judge.
        truth: The annotation.
        tolerance: How far a boundary may be off: a share of the diagonal if below 1,
            pixels otherwise.

    Raises:
        ValueError: If the masks differ in size or are not boolean.
    """
    _check(prediction, truth)
    box = _common_box(prediction, truth)
    radius = _radius(prediction.shape, tolerance)
    edges = _edges([prediction[box], truth[box]], radius)
    count, true_count = (int(np.bitwise_count(edge).sum()) for edge in edges)
    if count == 0 or true_count == 0:
        return float(count == true_count)
    near = edges & _widened(edges, radius)[::-1]
    hits, true_hits = (int(np.bitwise_count(part).sum()) for part in near)
    precision, recall = hits / count, true_hits / true_count
    if precision + recall == 0:
        return 0.0
    return 2 * precision * recall / (precision + recall)


def boundary(mask: Bool[np.ndarray, "h w"]) -> Bool[np.ndarray, "h w"]:
    """Mark pixels that differ from their right, lower or lower-right neighbour."""
    bits = _edges([mask], 1)[0]
    pixels = np.unpackbits(bits.view(np.uint8), axis=1, bitorder="little")
    return pixels[:, : mask.shape[1]].astype(bool)


def statistics(values: Float[np.ndarray, "*t"]) -> Statistics:
    """Summarise one sequence; NaN marks a frame that is not scored.

    Quarters are the official ones: neighbouring quarters share a frame, so four frames
    or fewer are fine too. The official code keeps frame numbers in 8 bits and goes
    wrong beyond 255 frames; here they are whole.
    """
    values = np.asarray(values, np.float64)
    if np.isnan(values).all():
        return Statistics(math.nan, math.nan, math.nan)
    ends = np.round(np.linspace(1, len(values), 5) + 1e-10).astype(int) - 1
    first, last = values[: ends[1] + 1], values[ends[3] : ends[4] + 1]
    return Statistics(
        mean=float(np.nanmean(values)),
        # A frame that is not scored is neither above nor below.
        recall=float(np.mean(values[~np.isnan(values)] > 0.5)),
        decay=_mean(first) - _mean(last),
    )


def _mean(values: np.ndarray) -> float:
    """Mean of what is scored; NaN where nothing is."""
    values = values[~np.isnan(values)]
    return float(values.mean()) if values.size else math.nan


def _check(prediction: np.ndarray, truth: np.ndarray) -> None:
    for name, mask in (("prediction", prediction), ("truth", truth)):
        if mask.dtype != np.bool_ or mask.ndim != 2:
            raise ValueError(
                f"{name} is {mask.dtype} {mask.shape}; expected bool (h, w)"
            )
    if prediction.shape != truth.shape:
        raise ValueError(f"prediction {prediction.shape}, truth {truth.shape}")


def _radius(shape: tuple[int, ...], tolerance: float) -> int:
    if tolerance >= 1:
        return math.ceil(tolerance)
    return math.ceil(tolerance * float(np.linalg.norm(shape)))


def _edges(
    masks: Sequence[Bool[np.ndarray, "h w"]], margin: int
) -> UInt64[np.ndarray, "n h m"]:
    """Return boundaries, packed 64 pixels a word, `margin` zeros or more after a row.

    Beyond the last row and column masks repeat, as in the official code.
    """
    h, w = masks[0].shape
    words = -(-(w + max(margin, 1)) // 64)
    padded = np.zeros((len(masks), h, words * 64), np.uint8)
    for row, mask in zip(padded, masks, strict=True):
        row[:, :w], row[:, w : w + 1] = mask, mask[:, -1:]
    here = _pack(padded)
    right = here >> ONE
    right.reshape(-1)[:-1] |= here.reshape(-1)[1:] << LAST
    edges = here ^ right
    corner = here[:, :-1] ^ right[:, 1:]
    corner |= here[:, :-1] ^ here[:, 1:]
    edges[:, :-1] |= corner
    edges &= _pack((np.arange(words * 64) < w).astype(np.uint8))
    return edges


def _pack(pixels: UInt8[np.ndarray, "*n w"]) -> UInt64[np.ndarray, "*n m"]:
    """Pack rows of 0 and 1, of a multiple of 64 pixels, into words."""
    return np.packbits(pixels, axis=-1, bitorder="little").view("<u8")


def _widened(
    bits: UInt64[np.ndarray, "n h m"], radius: int
) -> UInt64[np.ndarray, "n h m"]:
    """Dilate by a disk, the set of all offsets within `radius`; margins hold rubbish.

    Row dy of the disk is `half` pixels wide to either side. From its widest row
    outwards, what has come together is widened by the difference to the next width, and
    the rows of that width, moved up and down, join in.
    """
    h = bits.shape[1]
    near, out = bits.copy(), bits.copy()  # rows so far, not widened; and widened
    half = radius
    for dy in range(1, radius + 1):
        narrower = math.isqrt(radius**2 - dy**2)
        if narrower < half:
            out |= near
            _spread(out, half - narrower)
            half = narrower
        if dy < h:
            near[:, dy:] |= bits[:, : h - dy]
            near[:, : h - dy] |= bits[:, dy:]
    out |= near
    return out


def _spread(bits: UInt64[np.ndarray, "n h m"], by: int) -> None:
    """Widen every row in place by `by` pixels to both sides."""
    row, done = bits.reshape(-1), 0
    while done < by:
        # Two copies so far apart leave no gap between them and what is there.
        step = min(by - done, 2 * done + 1, 63)
        ahead, rest = np.uint64(step), np.uint64(64 - step)
        later, earlier = row << ahead, row >> ahead
        later[1:] |= row[:-1] >> rest
        earlier[:-1] |= row[1:] << rest
        row |= later
        row |= earlier
        done += step


def _common_box(a: np.ndarray, b: np.ndarray) -> tuple[slice, slice]:
    """Return the smallest box around both masks, one pixel wider on every side."""
    x, y, w, h = cv2.boundingRect((a | b).view(np.uint8))
    return slice(max(y - 1, 0), y + h + 1), slice(max(x - 1, 0), x + w + 1)
