"""Which frame pairs each step sees: a pure function of (seed, stage, step).

Every epoch is a new permutation of all pairs; batches run over the border between
epochs, so none is short. There is no state to save: a resumed run asks for step k and
gets the batch of step k.
"""

import dataclasses
import functools
from typing import Literal, get_args

import numpy as np
from jaxtyping import Int64

from imas_jax import errors

Stage = Literal["discover", "refine", "pretrain"]


@dataclasses.dataclass(frozen=True)
class Order:
    """Which pairs each step sees.

    Attributes:
        num_pairs: Pairs of an epoch.
        batch_size: Pairs a step, over all processes.
        seed: Not negative.
        stage: Shuffles each stage differently.
        process_index: Of this process; it gets a contiguous part of every batch.
        process_count: Divides the batch size.
    """

    num_pairs: int
    batch_size: int
    seed: int
    stage: Stage = "discover"
    process_index: int = 0
    process_count: int = 1

    def __post_init__(self) -> None:
        if self.batch_size % self.process_count:
            raise errors.UserError(
                f"batch_size={self.batch_size} over {self.process_count} processes",
                "the same number of pairs in every process",
                f"set {self.stage}.batch_size to a multiple of {self.process_count}",
            )

    def indices(self, step: int) -> Int64[np.ndarray, "*b"]:
        """Return the pairs of the whole batch of a step."""
        place = step * self.batch_size + np.arange(self.batch_size)
        epoch, within = np.divmod(place, self.num_pairs)
        key = (self.seed, get_args(Stage).index(self.stage))
        return np.array(
            [
                _permutation(self.num_pairs, *key, int(e))[i]
                for e, i in zip(epoch, within, strict=True)
            ],
            np.int64,
        )

    def local(self, step: int) -> Int64[np.ndarray, "*b"]:
        """Return the pairs of this process."""
        size = self.batch_size // self.process_count
        start = self.process_index * size
        return self.indices(step)[start : start + size]


@functools.lru_cache(maxsize=4)
def _permutation(count: int, seed: int, stage: int, epoch: int) -> np.ndarray:
    # Sorted raw bits: NumPy promises these for ever, unlike Generator.permutation.
    bits = np.random.Philox(np.random.SeedSequence((seed, stage, epoch)))
    return np.argsort(bits.random_raw(count), kind="stable")
