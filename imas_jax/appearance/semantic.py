"""Semantic constraint, paper Sec. 3.3-3.4, equations 10-13: pure NumPy functions.

A mask is summarised by the frozen features under it; the pixels whose features agree
with the summary are its match. The match constrains stage-2 targets (equation 12) and
judges masks without annotations (equation 13). Where features come from is not known
here; they and the masks live on one grid unless a function says otherwise.
"""

import dataclasses
from collections.abc import Callable, Iterable, Iterator

import cv2
import numpy as np
from jaxtyping import Bool, Float, Shaped

# Extent beyond which a match is no object but the scene (paper appendix).
WIDEST, HIGHEST = 0.8, 0.9
MOST_AT_ONCE = 128  # channels of an image: what OpenCV 5 takes


@dataclasses.dataclass(frozen=True)
class Constrained:
    """A mask after the semantic constraint.

    Attributes:
        mask: The mask inside the dilated match, or unchanged if discarded.
        discarded: Whether the match was too large to mean anything.
    """

    mask: Shaped[np.ndarray, "h w"]
    discarded: bool


@dataclasses.dataclass(frozen=True)
class SemanticConstraint:
    """Equation 12's numbers and where features come from.

    Attributes:
        features: Maps frames, uint8 RGB, to frozen features on any grid, in order.
        digest: Says which features, e.g. a digest of the weights.
        threshold: theta, a cosine.
        dilation: Side of the dilating square, pixels of the soft mask wherever the
            CRF runs.
    """

    features: Callable[[Iterable[np.ndarray]], Iterator[np.ndarray]]
    digest: str
    threshold: float
    dilation: int

    def told(self) -> dict[str, str | float]:
        """Say what it does, in plain values."""
        return {
            "features": self.digest,
            "threshold": self.threshold,
            "dilation": self.dilation,
        }


def pool(
    features: Float[np.ndarray, "h w k"], masks: Float[np.ndarray, "h w c"]
) -> Float[np.ndarray, "c k"]:
    """Average features over each mask (equation 10); zeros for an empty mask."""
    flat = masks.reshape(-1, masks.shape[-1]).astype(features.dtype)
    mass = flat.sum(axis=0)[:, None]
    total = flat.T @ features.reshape(-1, features.shape[-1])
    return np.divide(total, mass, out=np.zeros_like(total), where=mass > 0)


def similarity(
    features: Float[np.ndarray, "h w k"], summaries: Float[np.ndarray, "c k"]
) -> Float[np.ndarray, "h w c"]:
    """Cosine between every pixel's feature and each summary; 0 where either is zero."""
    norms = np.linalg.norm(features, axis=-1)[..., None]
    scale = np.maximum(norms * np.linalg.norm(summaries, axis=-1), 1e-12)
    return features @ summaries.T / scale


def mask_similarity(
    features: Float[np.ndarray, "hu wu k"], masks: Float[np.ndarray, "h w c"]
) -> Float[np.ndarray, "h w c"]:
    """Cosine to each mask's own summary, on the masks' grid.

    Pools on the features' grid and resizes the cosines, not the much wider features.
    """
    h, w, c = masks.shape
    small = resize(masks, features.shape[:2])
    return resize(similarity(features, pool(features, small)), (h, w)).reshape(h, w, c)


def dilate(match: Bool[np.ndarray, "h w"], size: int) -> Bool[np.ndarray, "h w"]:
    """Dilate by a full `size` x `size` square (equation 11), nothing from outside."""
    square = np.ones((size, size), np.uint8)
    return cv2.dilate(match.astype(np.uint8), square).astype(bool)


def is_discarded(match: Bool[np.ndarray, "h w"]) -> bool:
    """Tell whether the undilated match spans too much of the frame."""
    width, height = extent(match)
    return width > WIDEST or height > HIGHEST


def extent(match: Bool[np.ndarray, "h w"]) -> tuple[float, float]:
    """Return the (width, height) of the bounding box as shares of the frame."""
    columns, rows = np.flatnonzero(match.any(axis=0)), np.flatnonzero(match.any(axis=1))
    if not columns.size:
        return 0.0, 0.0
    h, w = match.shape
    return float(np.ptp(columns) + 1) / w, float(np.ptp(rows) + 1) / h


def constrain(
    mask: Shaped[np.ndarray, "h w"], match: Bool[np.ndarray, "h w"], dilation: int
) -> Constrained:
    """Keep the part of a mask inside the dilated match (equation 12).

    Args:
        mask: Refined foreground, binary or grey levels.
        match: Cosine above theta, undilated.
        dilation: Side of the dilating square, pixels (paper: 3 on DAVIS16, 7 on STv2
            and FBMS59).
    """
    if is_discarded(match):
        return Constrained(mask, discarded=True)
    return Constrained(mask * dilate(match, dilation), discarded=False)


def alignment_score(
    mask: Bool[np.ndarray, "h w"], match: Bool[np.ndarray, "h w"]
) -> float:
    """IoU of a mask and its own match (equation 13); 0 where the match is discarded."""
    return 0.0 if is_discarded(match) else overlap(mask, match)


def overlap(a: Bool[np.ndarray, "h w"], b: Bool[np.ndarray, "h w"]) -> float:
    """IoU of two masks; 0 when both are empty, for an empty mask finds no object."""
    union = np.count_nonzero(a | b)
    return np.count_nonzero(a & b) / union if union else 0.0


def resize(
    maps: Float[np.ndarray, "h w c"], size: tuple[int, int]
) -> Float[np.ndarray, "h2 w2 c"]:
    """Resize bilinearly, half-pixel centres, no antialias, on the host."""
    blocks = np.split(maps, range(MOST_AT_ONCE, maps.shape[-1], MOST_AT_ONCE), axis=-1)
    resized = [cv2.resize(np.ascontiguousarray(block), size[::-1]) for block in blocks]
    return np.concatenate([block.reshape(*size, -1) for block in resized], axis=-1)
