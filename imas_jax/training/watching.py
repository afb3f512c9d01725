"""Who looks at training while it runs. Nothing comes back from them.

The loop tells a watcher what happens; a watcher returns nothing, so what it sees cannot
change what is learned. What watchers do is `stages/watch.py`.
"""

from collections.abc import Mapping
from typing import Protocol, runtime_checkable

from imas_jax.training.state import TrainState


@runtime_checkable
class Watcher(Protocol):
    """What the loop tells, in the first process only."""

    def start(self, step: int) -> None:
        """Training begins after `step` updates; what was told of later ones is void."""

    def scalars(self, step: int, values: Mapping[str, float]) -> None:
        """At every log line: the metrics of the newest step."""

    def wants(self, step: int) -> bool:
        """Tell whether `state` is to be called after this step."""

    def state(self, step: int, state: TrainState) -> None:
        """Look at a copy of the state."""

    def close(self) -> None:
        """Training has ended, or stops."""


class Nobody:
    """Watches nothing."""

    def start(self, step: int) -> None:
        """Do nothing."""

    def scalars(self, step: int, values: Mapping[str, float]) -> None:
        """Do nothing."""

    def wants(self, step: int) -> bool:
        """Want nothing."""
        return False

    def state(self, step: int, state: TrainState) -> None:
        """Do nothing."""

    def close(self) -> None:
        """Do nothing."""


NOBODY = Nobody()
