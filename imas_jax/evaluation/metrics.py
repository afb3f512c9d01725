"""Region overlap J and boundary accuracy F of binary masks, and their statistics.

The official DAVIS-2016 definitions (Perazzi et al., CVPR 2016; `db_eval_iou`,
`db_eval_boundary`, `db_statistics`), to the last digit, degenerate masks included
(FACTS.md, "Evaluation"; tests/parity). Which frames are averaged, and how, is
`evaluation/protocol.py`.

Made quick by looking only at the box that holds both objects, and by widening
boundaries 64 pixels at a time: a boundary is packed into bits, so that widening is a
few shifts of long words.
"""

import dataclasses
import math

import cv2
import numpy as np
from jaxtyping import Bool, Float, UInt8, UInt64

# Boundary tolerance as a share of the image diagonal: 8 px at 854x480.
TOLERANCE = 0.008


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
    union = np.count_nonzero(prediction | truth)
    if union == 0:
        return 1.0
    return np.count_nonzero(prediction & truth) / union


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
    edge, true_edge = _boundary(prediction[box]), _boundary(truth[box])
    count, true_count = np.count_nonzero(edge), np.count_nonzero(true_edge)
    if count == 0 or true_count == 0:
        return float(count == true_count)
    radius = _radius(prediction.shape, tolerance)
    bits, true_bits = _pack(edge, radius), _pack(true_edge, radius)
    hits = np.bitwise_count(bits & _widened(true_bits, radius)).sum()
    true_hits = np.bitwise_count(true_bits & _widened(bits, radius)).sum()
    precision, recall = int(hits) / count, int(true_hits) / true_count
    if precision + recall == 0:
        return 0.0
    return 2 * precision * recall / (precision + recall)


def boundary(mask: Bool[np.ndarray, "h w"]) -> Bool[np.ndarray, "h w"]:
    """Mark pixels that differ from their right, lower or lower-right neighbour."""
    return _boundary(mask).astype(bool)


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


def _pack(image: UInt8[np.ndarray, "h w"], margin: int) -> UInt64[np.ndarray, "h n"]:
    """Pack an image of 0 and 1 into words, with `margin` zeros or more after a row."""
    h, w = image.shape
    words = -(-(w + margin) // 64)
    padded = np.zeros((h, words * 64), np.uint8)
    padded[:, :w] = image
    return np.packbits(padded, axis=1, bitorder="little").view("<u8")


def _widened(bits: UInt64[np.ndarray, "h n"], radius: int) -> UInt64[np.ndarray, "h n"]:
    """Dilate by a disk, the set of all offsets within `radius`; margins hold rubbish.

    Row dy of the disk is `half` pixels wide to either side: rows are widened one pixel
    further at a time, and moved up and down where the disk has that width.
    """
    h = len(bits)
    half_of_row = [math.isqrt(radius**2 - dy**2) for dy in range(radius + 1)]
    row = bits.reshape(-1).copy()
    out = np.zeros_like(bits)
    for half in range(radius + 1):
        if half:
            row |= _shifted(bits.reshape(-1), half) | _shifted(bits.reshape(-1), -half)
        wide = row.reshape(bits.shape)
        for dy in (d for d in range(min(radius, h - 1) + 1) if half_of_row[d] == half):
            out[dy:] |= wide[: h - dy]
            out[: h - dy] |= wide[dy:]
    return out


def _shifted(words: UInt64[np.ndarray, "*n"], by: int) -> UInt64[np.ndarray, "*n"]:
    """Move a stream of bits `by` places, to later ones if positive."""
    whole, part = divmod(abs(by), 64)
    out = np.zeros_like(words)
    kept = len(words) - whole
    if kept <= 0:
        return out
    step, rest = np.uint64(part), np.uint64(64 - part)
    if by >= 0:
        out[whole:] = words[:kept] << step
        if part:
            out[whole + 1 :] |= words[: kept - 1] >> rest
    else:
        out[:kept] = words[whole:] >> step
        if part:
            out[: kept - 1] |= words[whole + 1 :] << rest
    return out


def _common_box(a: np.ndarray, b: np.ndarray) -> tuple[slice, slice]:
    """Return the smallest box around both masks, one pixel wider on every side."""
    x, y, w, h = cv2.boundingRect((a | b).view(np.uint8))
    return slice(max(y - 1, 0), y + h + 1), slice(max(x - 1, 0), x + w + 1)


def _boundary(mask: np.ndarray) -> UInt8[np.ndarray, "h w"]:
    """Return the boundary as 0 and 1.

    A pixel and its three neighbours differ where the largest of the four is not the
    smallest; repeating the last row and column is what the official code does there.
    """
    corner = np.ones((2, 2), np.uint8)
    image = np.ascontiguousarray(mask).view(np.uint8)
    if image.size == 0:
        return image
    replicate = cv2.BORDER_REPLICATE
    largest = cv2.dilate(image, corner, anchor=(0, 0), borderType=replicate)
    smallest = cv2.erode(image, corner, anchor=(0, 0), borderType=replicate)
    return np.bitwise_xor(largest, smallest, dtype=np.uint8)
