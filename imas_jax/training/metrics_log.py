"""What training writes of itself: metrics of every step, and a line for people."""

import json
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from imas_jax import files
from imas_jax.progress import StepLine
from imas_jax.training import parallel
from imas_jax.training.state import TrainState
from imas_jax.training.watching import NOBODY, Watcher

Metrics = dict[str, float]
T = TypeVar("T")

# What a line for people has: metric, digits, unit.
SHOWN = (("loss", 4, ""), ("motion", 3, " px"), ("photometric", 4, ""))


@dataclass(frozen=True)
class Schedule:
    """How long to train and how often to write.

    Attributes:
        steps: Updates in total.
        checkpoint_every: Updates between checkpoints.
        log_every: Updates between log lines.
        learning_rate: Of update number n, from 0, to be logged; None logs none.
    """

    steps: int
    checkpoint_every: int
    log_every: int
    learning_rate: Callable[[np.ndarray], Any] | None = None


class DataClock:
    """How much of its time the loop waits for data.

    The first step, which compiles, does not count.
    """

    def __init__(self) -> None:
        self._drawn, self._waited, self._start = 0, 0.0, 0.0

    def draw(self, source: Iterator[T], busy: Future[float] | None = None) -> T:
        """Return the next batch, and note how long it took to come.

        Args:
            source: Where it comes from.
            busy: Will hold when the devices finished all they had (`time.monotonic`);
                until then nothing waits. None counts every wait.
        """
        asked = time.monotonic()
        batch = next(source)
        came = time.monotonic()
        self._drawn += 1
        if self._drawn == 2:
            self._start = asked
        if self._drawn >= 2:
            idle = asked
            if busy is not None:
                idle = max(asked, busy.result()) if busy.done() else came
            self._waited += came - idle
        return batch

    def to_json(self) -> dict[str, float]:
        """Return steps, seconds they took, and the share spent waiting for data."""
        if self._drawn < 2:
            return {"steps": 0, "seconds": 0.0, "waiting": 0.0}
        seconds = max(time.monotonic() - self._start, 1e-9)
        return {
            "steps": self._drawn - 1,
            "seconds": round(seconds, 3),
            "waiting": round(self._waited / seconds, 5),
        }


class MetricsLog:
    """JSON lines, one a step, and a line for people now and then.

    Lines past the step a run continues from are dropped, so the file has each step
    once however often the run was killed.

    Args:
        path: The JSON lines.
        first_step: Updates done before.
        name: Of the stage, for log lines.
        schedule: Length, rhythm and learning rate.
        watcher: Is told the newest metrics at every line for people.
    """

    def __init__(
        self,
        path: Path,
        first_step: int,
        name: str,
        schedule: Schedule,
        watcher: Watcher = NOBODY,
    ):
        self._path, self._name, self._schedule = path, name, schedule
        self._watcher = watcher
        self._writes = parallel.process()[0] == 0
        if not self._writes:
            return
        self._line = StepLine(name, schedule.steps, first_step)
        kept = []
        if path.is_file():
            for line in path.read_text().splitlines():
                try:
                    record = json.loads(line)
                except json.JSONDecodeError:
                    break  # the last line of a killed run may be half written
                if record["step"] <= first_step:
                    kept.append(line)
        files.write_text(path, "".join(line + "\n" for line in kept))

    def write(self, pending: list[tuple[int, Metrics]], clock: DataClock) -> None:
        """Append the metrics of some steps; say how long data took."""
        if not (self._writes and pending):
            return
        lines, values = [], {}
        rates = self._learning_rates([step for step, _ in pending])
        for (step, metrics), rate in zip(pending, rates, strict=True):
            values = metrics | rate
            lines.append(json.dumps({"step": step, **values}) + "\n")
        with self._path.open("a") as file:
            file.writelines(lines)
        timing = clock.to_json()
        files.write_text(self._path.with_name("timing.json"), json.dumps(timing) + "\n")
        self._line.show(
            pending[-1][0],
            "  ".join(
                f"{name} {values[name]:.{digits}f}{unit}"
                for name, digits, unit in SHOWN
                if name in values
            ),
            f"data {100 * timing['waiting']:.1f} %",
        )
        self._watcher.scalars(pending[-1][0], values)

    def look(self, step: int, carried: TrainState) -> None:
        """Show the watcher a copy of the state where it wants one."""
        if self._writes and self._watcher.wants(step):
            self._watcher.state(step, parallel.unreplicate(carried))

    def close(self) -> None:
        """Leave a terminal's line as it is."""
        if self._writes:
            self._line.close()

    def _learning_rates(self, steps: Sequence[int]) -> list[dict[str, float]]:
        if self._schedule.learning_rate is None:
            return [{} for _ in steps]
        rates = self._schedule.learning_rate(np.asarray(steps) - 1)
        return [{"learning_rate": float(rate)} for rate in np.asarray(rates)]
