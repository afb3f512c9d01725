"""Which process of a run is stuck: each says what it does, and others look.

A process tells the runtime's service once a second how often it has got on
(`progress.beat`), and whether it only waits for the others. The first process looks at
all, all look at the first. Ages are by the looker's own clock: clocks may differ.
"""

import dataclasses
import json
import socket
import time
from collections.abc import Callable, Iterable, Mapping

from imas_jax import progress

FOLDER = "imas_jax/peers/"  # of the service's keys


@dataclasses.dataclass(frozen=True)
class Said:
    """What a process says of itself.

    Attributes:
        time: Differs each time: that it says anything is news too.
        beats: How often it has got on.
        waits: Whether it only waits for others.
        name: For people.
        doing: What it did last, for people.
    """

    time: int
    beats: int
    waits: bool
    name: str
    doing: str


def told(time: int, name: str) -> str:
    """Return what this process says of itself, as `Peers.hear` takes it."""
    now, host = progress.PULSE, socket.gethostname()
    said = Said(time, now.beats, now.waits, f"{name} on {host}", now.doing)
    return json.dumps(dataclasses.astuple(said))


@dataclasses.dataclass
class _Peer:
    """What a process said last, when it was heard of, and when it got on."""

    said: Said
    heard: float
    moved: float


class Peers:
    """What is known of the processes of a run.

    Args:
        patience: Seconds without progress after which one counts as hung; 0: never.
        clock: Seconds.
    """

    def __init__(self, patience: float, clock: Callable[[], float] = time.monotonic):
        self._patience, self._clock = patience, clock
        self._known: dict[int, _Peer] = {}

    def hear(self, texts: Mapping[int, str]) -> None:
        """Note what processes said last, by index, as `told` makes it."""
        now = self._clock()
        for index, text in texts.items():
            said = Said(*json.loads(text))
            peer = self._known.setdefault(index, _Peer(said, now, now))
            if said != peer.said:
                peer.heard = now
            if (said.beats, said.waits) != (peer.said.beats, peer.said.waits):
                peer.moved = now
            peer.said = said

    def silent(self, seconds: float, expected: Iterable[int]) -> str:
        """Name the expected ones that have said nothing for so long; "" for none."""
        now = self._clock()
        found = {i: self._known.get(i) for i in expected}
        return "; ".join(
            f"{peer.said.name} was last heard of {now - peer.heard:.0f} s ago"
            if peer
            else f"process {i} was never heard of"
            for i, peer in found.items()
            if peer is None or now - peer.heard >= seconds
        )

    def hung(self, count: int) -> str:
        """Name the processes that have not got on for too long; "" for none.

        Who waits for another is not hung, unless nothing is heard of it, or all wait.

        Args:
            count: How many processes there are.
        """
        if not self._patience:
            return ""
        late = self._clock() - self._patience
        stuck = [peer for peer in self._known.values() if peer.moved <= late]
        hung = [peer for peer in stuck if not peer.said.waits or peer.heard <= late]
        if not hung and len(stuck) == count:
            return (
                f"all {count} processes have waited for each other for "
                f"{self._patience:g} s (last: {stuck[0].said.doing})"
            )
        return "; ".join(
            f"{peer.said.name} hangs: no progress for {self._patience:g} s (last: "
            f"{peer.said.doing})"
            for peer in hung
        )
