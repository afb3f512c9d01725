"""A training set that lies on the devices: every step draws its batch there.

For a set that fits beside the network (DAVIS16 is 7 GB). Frames and flow are sent once,
as they are stored, with the order of all steps to come (`data/order.py`); after that
the host sends nothing of a batch. Batches, and so losses, are those of
`data.source = "memory"` to the bit.

Every device holds the whole set, also where several processes share the devices: the
order shuffles over all pairs, so that any device may need any of them at any step. With
a share each, devices would send each other most of a batch at every step.
"""

from collections.abc import Callable, Iterator
from typing import Any

import jax
import numpy as np
from absl import logging
from flax import struct
from jaxtyping import Float16, Int32, UInt8

from imas_jax.conventions import Batch, HostOrDevice
from imas_jax.data import memory
from imas_jax.data.pipeline import MemorySource
from imas_jax.errors import UserError
from imas_jax.training import parallel


@struct.dataclass
class Held:
    """What a device holds; rows are flat, as an axis of three would be padded on a TPU.

    Attributes:
        frames: All frames of all clips, RGB.
        flows: Forward and backward flow of every pair, pixels of the frame.
        targets: Stage-2 targets of all frames, or None.
        places: Numbers of each pair's two frames.
        order: The pairs of the whole batch of every step of training.
        shapes: Of a row of frames, of flows and of targets.
    """

    frames: UInt8[HostOrDevice, "*d n p"]
    flows: Float16[HostOrDevice, "*d m q"]
    targets: UInt8[HostOrDevice, "*d n r"] | None
    places: Int32[HostOrDevice, "*d m 2"]
    order: Int32[HostOrDevice, "*d s b"]
    shapes: tuple[tuple[int, ...], ...] = struct.field(pytree_node=False)

    def batch(self, step: jax.Array) -> Batch:
        """Return this device's part of the batch of a step, inside the step."""
        count = self.order.shape[1] // parallel.axis_size()
        chosen = parallel.own_part(self.order[step], count)
        places = self.places[chosen]
        frames, flows, targets = self.shapes
        flow = self.flows[chosen].reshape(-1, *flows)
        drawn = Batch(
            frames=self.frames[places].reshape(-1, 2, *frames),
            flow_forward=flow[:, 0],
            flow_backward=flow[:, 1],
            target=None
            if self.targets is None
            else self.targets[places].reshape(-1, 2, *targets),
            pair=chosen,
        )
        # What follows is compiled as for a batch that comes from the host: same bits.
        return jax.lax.optimization_barrier(drawn)


def drawing(step: Callable[[Any, Batch], Any]) -> Callable[[Any, Held], Any]:
    """Turn a per-device `step(state, batch)` into one that draws its batch itself."""

    def run(state: Any, held: Held) -> Any:
        return step(state, held.batch(state.step))

    return run


class HeldSource:
    """Gives every step what the devices hold.

    Args:
        source: What to hold; its frames are pixels.
        steps: Of training.
        here: How many of the run's processes are on this host.

    Raises:
        UserError: If it does not fit.
    """

    def __init__(self, source: MemorySource, steps: int, here: int = 1):
        self._source, self._steps = source, steps
        self._targets = source.targets
        self._frames = [
            (clip, t) for clip, one in enumerate(source.frames) for t in range(len(one))
        ]
        check_room(self.needed(), here)

    def needed(self) -> int:
        """Return the bytes each device holds."""
        source = self._source
        size = sum(one.nbytes for one in (*source.frames, *source.flows))
        size += sum(one.nbytes for one in self._targets or ())
        return size + 4 * self._steps * source.order.batch_size

    def batches(self, first: int) -> Iterator[Any]:
        """Yield the same for every step; it is sent before the first one.

        What is yielded stands for a batch that is split over the devices already. All
        steps know all of the order, so that a run that goes on compiles nothing new.
        """
        del first
        sent = self._send()
        while True:
            yield sent

    def _send(self) -> Held:
        source = self._source
        starts = np.cumsum([0, *map(len, source.frames)])
        places = [
            (starts[pair.clip] + pair.first, starts[pair.clip] + pair.second)
            for pair in source.pairs
        ]
        order = np.stack([source.order.indices(step) for step in range(self._steps)])

        pixels: Any = source.frames[0]

        def rows_of(arrays: Any) -> Callable[[int], np.ndarray]:
            def row(number: int) -> np.ndarray:
                clip, t = self._frames[number]
                return arrays[clip][t]

            return row

        count, targets = len(self._frames), self._targets
        return Held(
            frames=parallel.hold(count, rows_of(source.frames)),
            flows=parallel.hold(len(source.pairs), source.flows.__getitem__),
            targets=None if targets is None else parallel.hold(count, rows_of(targets)),
            places=parallel.replicate(np.asarray(places, np.int32)),
            order=parallel.replicate(order.astype(np.int32)),
            shapes=(
                pixels.shape[1:],
                source.flows[0].shape,
                () if targets is None else targets[0].shape[1:],
            ),
        )


def check_room(needed: int, here: int = 1) -> None:
    """Refuse a set that a device cannot hold.

    Args:
        needed: Bytes on each device.
        here: How many of the run's processes are on this host.

    Raises:
        UserError: With what is free.
    """
    free = parallel.free_memory()
    if free is None:  # devices that are the host's processors
        own = needed * parallel.devices_here()
        memory.check(0, own, here, source="device")
        return
    if needed > free:
        raise UserError(
            f"data.source=device: {needed / 1e9:.2f} GB of frames and flow for each "
            "device",
            f"at most the {free / 1e9:.2f} GB that are free on every one, and less, "
            "for the network needs room beside them",
            "set --config.data.source=memory, or a smaller data.size",
        )
    logging.info(
        "data.source=device: %.2f GB on each device; %.2f GB are left to the network",
        needed / 1e9,
        (free - needed) / 1e9,
    )
