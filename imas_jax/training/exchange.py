"""What the processes of a run tell each other besides gradients.

Plain values go through the runtime's service, as JSON: floats come back bit for bit. It
needs no device, so nothing here meets a collective that others are not in.
"""

import itertools
import json
from typing import Any

from imas_jax.training import parallel

_TALLIES = itertools.count()  # each has a number, the same in every process


def gather(value: Any) -> list[Any]:
    """Return every process's value, in the order of processes; each must call this.

    Args:
        value: Of what JSON knows.

    Returns:
        The values, as JSON has them: tuples have become lists.
    """
    return [json.loads(text) for text in parallel.exchange(json.dumps(value))]


class Tally:
    """Counts what all processes have done of one work; each must make one.

    Args:
        total: What this process has to do.
    """

    def __init__(self, total: int):
        self._index, self._count = parallel.process()
        self._place = f"imas_jax/tally/{next(_TALLIES)}"
        self.tell(0, total)

    def tell(self, done: int, total: int) -> None:
        """Say how far this process is."""
        parallel.service().key_value_set(
            f"{self._place}/{self._index}", f"{done} {total}", allow_overwrite=True
        )

    def whole(self) -> tuple[int, int, bool]:
        """Return what is done and what there is to do, and whether all have told."""
        found = parallel.service().key_value_dir_get(f"{self._place}/")
        told = [tuple(map(int, text.split())) for _, text in found]
        done, total = (sum(column) for column in zip(*told, strict=True))
        return done, total, len(told) == self._count

    def forget(self) -> None:
        """Let go of what was told, when all are done; one process does."""
        parallel.service().key_value_delete(f"{self._place}/")
