"""Targets made while training: a teacher looks at a batch, the host refines its masks.

The teacher is the averaged network. So that the host works beside the devices, it is
one update late: the masks of a batch are asked for before the update that precedes the
batch's own, and refined while the devices compute that update. A state carries the late
teacher, so a resumed run asks it what the killed run had asked, and gets the same bits.
"""

import dataclasses
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import jax
import numpy as np
from jaxtyping import Float, UInt8

from imas_jax.conventions import Batch, Tree
from imas_jax.training import parallel
from imas_jax.training.state import TrainState

Look = Callable[[Tree, jax.Array], jax.Array]
Refine = Callable[
    [UInt8[np.ndarray, "b 2 h w 3"], Float[np.ndarray, "b 2 hm wm"]],
    UInt8[np.ndarray, "b 2 hm wm"],
]


class OnlineTargets:
    """Gives batches the targets that a state's teacher leads to.

    Args:
        look: Per-device `(variables, frames (b, 2, h, w, 3)) -> masks (b, 2, hm, wm)`
            of the object.
        refine: Turns frames and masks into targets, 0..255, on the host.
    """

    def __init__(self, look: Look, refine: Refine):
        self._look = parallel.run_on_devices(look, donate=False)
        self._refine = refine
        self._watch = ThreadPoolExecutor(1, thread_name_prefix="busy")

    def follow(
        self, source: Iterator[Batch], state: Callable[[], TrainState]
    ) -> Iterator[Batch]:
        """Yield the source's batches with targets.

        Args:
            source: This process's batches, without targets.
            state: Returns the newest state on the devices, which must be the one before
                the update with the batch that is asked for.
        """
        batch = next(source)
        masks = self._look(state().teacher, parallel.split(batch.frames))
        while True:
            found = np.asarray(masks)
            target = self._refine(batch.frames, found.reshape(-1, *found.shape[2:]))
            following = next(source)
            # Before the update that is asked for with this batch takes the state away.
            masks = self._look(state().ema, parallel.split(following.frames))
            yield dataclasses.replace(batch, target=target)
            batch = following

    def finished(self, metrics: Any) -> Future[float]:
        """Return when the devices will have computed these metrics, in a while."""

        def wait() -> float:
            jax.block_until_ready(metrics)
            return time.monotonic()

        return self._watch.submit(wait)
