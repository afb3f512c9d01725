"""Normalised cuts of a frame's features, RCF's judge and stage 2.2: pure NumPy.

Lian, Wu and Yu, *Bootstrapping Objectness from Videos by Relaxed Common Fate and Visual
Grouping*, CVPR 2023. Places of a frame belong together where the cosine of their
features is above a threshold. A soft mask that cuts few of these ties is an object
(`cost`), and one that cuts some can be improved (`refine`). Equations 12 and 13, in
whose place this stands, are in `semantic.py`.
"""

import dataclasses
from collections.abc import Callable, Iterable, Iterator

import numpy as np
from jaxtyping import Bool, Float

from imas_jax.appearance import semantic

FLOOR = 1e-5  # affinity of what does not belong together (RCF)
WORST = 2.0  # cost of a cut that severs all ties of one side; of no cut, by convention
# Most places of a grid: RCF's own, a 480x856 frame at stride 8. Affinities take its
# square.
PLACES = 60 * 107
STEPS, RATE, DECAY = 10, 0.45, 1e-6  # of `refine`, by Adam (RCF)


@dataclasses.dataclass(frozen=True)
class CutConstraint:
    """How RCF's stage 2.2 limits targets: CRF(mask) and CRF(refined mask), both.

    Attributes:
        features: Maps frames, uint8 RGB, to frozen features on any grid, in order.
        digest: Says which features, e.g. a digest of the weights.
        threshold: Cosine above which places belong together (RCF 0.2).
        disagreement: Share of the frame in which the two masks may differ; beyond it
            the cut has another object, and CRF(mask) stays alone. 0 never looks.
        stretch: In place of the preset's, of the second CRF (RCF 0.5).
    """

    features: Callable[[Iterable[np.ndarray]], Iterator[np.ndarray]]
    digest: str
    threshold: float
    disagreement: float = 0.0
    stretch: float = 0.5

    def told(self) -> dict[str, str | float]:
        """Say what it does, in plain values."""
        return {
            "cut": self.digest,
            "threshold": self.threshold,
            "disagreement": self.disagreement,
            "stretch": self.stretch,
        }

    def refined(
        self,
        features: Float[np.ndarray, "hu wu k"],
        mask: Float[np.ndarray, "h w"],
        size: tuple[int, int],
    ) -> Float[np.ndarray, "h2 w2"]:
        """Return the mask after its cut was improved, at `size`."""
        features = on_grid(features)
        small = nearest(mask, features.shape[:2])
        found = refine(affinity(features, self.threshold), small)
        return semantic.resize(found.astype(np.float32)[..., None], size)[..., 0]

    def agree(
        self, single: Bool[np.ndarray, "h w"], cut: Bool[np.ndarray, "h w"]
    ) -> semantic.Constrained:
        """Return what both masks have, or the first where they are too different."""
        apart = np.mean(single != cut)
        if self.disagreement and apart > self.disagreement:
            return semantic.Constrained(single, discarded=True)
        return semantic.Constrained(single & cut, discarded=False)


def affinity(
    features: Float[np.ndarray, "h w k"], threshold: float
) -> Float[np.ndarray, "n n"]:
    """Return 1 for places whose cosine is above a threshold, else next to nothing."""
    flat = features.reshape(-1, features.shape[-1])
    norms = np.maximum(np.linalg.norm(flat, axis=-1, keepdims=True), 1e-12)
    flat = flat / norms
    return np.where(flat @ flat.T > threshold, 1.0, FLOOR).astype(features.dtype)


def cost(ties: Float[np.ndarray, "n n"], mask: Float[np.ndarray, "h w"]) -> float:
    """Return the cost of cutting a soft mask out, in [0, 2].

    An empty or full mask cuts nothing and costs as much as the worst cut.
    """
    inside = mask.ravel().astype(ties.dtype)
    outside = 1.0 - inside
    if not inside.any() or not outside.any():
        return WORST
    tied = ties @ inside
    cut = outside @ tied
    return float(cut / tied.sum() + cut / (ties @ outside).sum())


def refine(
    ties: Float[np.ndarray, "n n"],
    mask: Float[np.ndarray, "h w"],
    steps: int = STEPS,
) -> Float[np.ndarray, "h w"]:
    """Lower the cost of a soft mask by some steps of Adam, cut to [0, 1] after each.

    A mask that is empty or full has no cost to lower: it stays.
    """
    x = mask.ravel().astype(ties.dtype)
    degree = ties.sum(axis=1)
    mean, square = np.zeros_like(x), np.zeros_like(x)
    for step in range(1, steps + 1):
        if not x.any() or (x == 1.0).all():
            break
        tied = ties @ x
        cut = (1.0 - x) @ tied
        here, there = degree @ x, degree @ (1.0 - x)
        slope = (degree - 2.0 * tied) * (1.0 / here + 1.0 / there)
        slope = slope + cut * degree * (1.0 / there**2 - 1.0 / here**2)
        slope = slope + DECAY * x  # coupled, as torch's Adam has it
        mean = 0.9 * mean + 0.1 * slope
        square = 0.999 * square + 0.001 * slope**2
        scale = np.sqrt(square / (1.0 - 0.999**step)) + 1e-8
        x = np.clip(x - RATE * mean / (1.0 - 0.9**step) / scale, 0.0, 1.0)
    return x.reshape(mask.shape)


def nearest(
    maps: Float[np.ndarray, "h w *k"], size: tuple[int, int]
) -> Float[np.ndarray, "h2 w2 *k"]:
    """Take every so many pixels, place i at floor(i h / h2), as torch does."""
    rows, columns = (
        np.arange(n) * m // n for n, m in zip(size, maps.shape[:2], strict=True)
    )
    return maps[rows][:, columns]


def on_grid(features: Float[np.ndarray, "h w k"]) -> Float[np.ndarray, "h2 w2 k"]:
    """Return features of as many places as affinities can be kept of."""
    h, w = features.shape[:2]
    step = int(np.ceil(np.sqrt(h * w / PLACES)))
    return nearest(features, (-(-h // step), -(-w // step))) if step > 1 else features
