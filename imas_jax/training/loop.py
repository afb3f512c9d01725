"""The training loop: batches in, checkpoints and a metrics log out.

A run killed at any moment and started again ends with the same bits: batches and keys
are functions of the step, and the loop starts from the newest sound checkpoint.
"""

import json
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Any

import jax
import numpy as np
from absl import logging

from imas_jax.conventions import Batch
from imas_jax.errors import UserError
from imas_jax.progress import duration
from imas_jax.training import parallel
from imas_jax.training.checkpoints import Checkpoints
from imas_jax.training.state import TrainState

# Steps the host may be ahead of the devices: enough to keep them busy, and few, so that
# a wait for data is one of theirs too.
IN_FLIGHT = 2

Step = Callable[[TrainState, Batch], tuple[TrainState, dict[str, jax.Array]]]


@dataclass(frozen=True)
class Schedule:
    """How long to train and how often to write.

    Attributes:
        steps: Updates in total.
        checkpoint_every: Updates between checkpoints.
        log_every: Updates between log lines.
    """

    steps: int
    checkpoint_every: int
    log_every: int


def train(
    name: str,
    step: Step,
    state: TrainState,
    batches: Callable[[int], Iterator[Batch]],
    folder: Path,
    schedule: Schedule,
) -> TrainState:
    """Train to `schedule.steps`, continuing from the newest checkpoint in `folder`.

    Args:
        name: Of the stage, for log lines.
        step: Per-device step.
        state: Where to start when there is no checkpoint.
        batches: `batches(first_step)` yields this process's batch of every step.
        folder: Holds `checkpoints/`, `metrics.jsonl` and `timing.json`.
        schedule: Length and rhythm.

    Returns:
        The final state on the host.

    Raises:
        UserError: If a loss is not finite (with its step), or SIGINT asked to stop.
    """
    checkpoints = Checkpoints(folder / "checkpoints")
    try:
        restored = checkpoints.restore(state)
        if restored is not None:
            state = restored
            logging.info("%s: continuing from step %d", name, int(state.step))
        log = MetricsLog(folder / "metrics.jsonl", int(state.step), name, schedule)
        with StopRequest() as stop:
            state = _steps(step, state, batches, checkpoints, schedule, log, stop)
    finally:
        checkpoints.close()
    if int(state.step) < schedule.steps:
        raise UserError(
            f"{name} was interrupted at step {int(state.step)} of {schedule.steps}",
            "the stage to finish",
            "run the same command again: it continues from this step",
        )
    return state


def _steps(
    step: Step,
    state: TrainState,
    batches: Callable[[int], Iterator[Batch]],
    checkpoints: Checkpoints,
    schedule: Schedule,
    log: "MetricsLog",
    stop: "StopRequest",
) -> TrainState:
    """Run the remaining steps; save at the end, at the rhythm, and when asked to."""
    first = int(state.step)
    if first >= schedule.steps:
        if not checkpoints.steps():  # no steps asked for: weights from a file, as is
            checkpoints.save(state)
        return state
    run = parallel.run_on_devices(step)
    carried = parallel.replicate(state)
    pending: list[tuple[int, Any]] = []
    source, clock = batches(first), DataClock()
    for done in range(first + 1, schedule.steps + 1):
        carried, metrics = run(carried, parallel.split(clock.draw(source)))
        pending.append((done, metrics))
        if len(pending) > IN_FLIGHT:
            jax.block_until_ready(pending[-1 - IN_FLIGHT][1])
        last = done == schedule.steps or stop.requested
        save = last or done % schedule.checkpoint_every == 0
        if save or done % schedule.log_every == 0:
            log.write(pending, clock)
            pending = []
        if save:
            checkpoints.save(parallel.unreplicate(carried))
        if last:
            break
    return parallel.unreplicate(carried)


class DataClock:
    """How much of its time the loop waits for data.

    The first step, which compiles, does not count.
    """

    def __init__(self) -> None:
        self._drawn, self._waited, self._start = 0, 0.0, 0.0

    def draw(self, source: Iterator[Batch]) -> Batch:
        """Return the next batch, and note how long it took to come."""
        asked = time.monotonic()
        batch = next(source)
        self._drawn += 1
        if self._drawn == 2:
            self._start = asked
        if self._drawn >= 2:
            self._waited += time.monotonic() - asked
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
    """JSON lines, one a step, and a plain line now and then.

    Lines past the step a run continues from are dropped, so the file has each step
    once however often the run was killed.
    """

    def __init__(self, path: Path, first_step: int, name: str, schedule: Schedule):
        self._path, self._name, self._schedule = path, name, schedule
        self._start, self._first = time.monotonic(), first_step
        self._writes = parallel.process()[0] == 0
        if not self._writes:
            return
        kept = []
        if path.is_file():
            for line in path.read_text().splitlines():
                try:
                    record = json.loads(line)
                except json.JSONDecodeError:
                    break  # the last line of a killed run may be half written
                if record["step"] <= first_step:
                    kept.append(line)
        aside = path.with_suffix(".aside")
        aside.write_text("".join(line + "\n" for line in kept))
        os.replace(aside, path)

    def write(self, pending: list[tuple[int, Any]], clock: DataClock) -> None:
        """Fetch and append the metrics of some steps; say how long data took.

        Raises:
            UserError: If a loss is not finite; nothing is saved after it.
        """
        if not pending:
            return
        lines, values = [], {}
        for step, metrics in pending:
            values = {k: float(np.asarray(v)[0]) for k, v in metrics.items()}
            if not np.isfinite(values["loss"]):
                raise UserError(
                    f"{self._name}: the loss is {values['loss']} at step {step}",
                    "a finite loss",
                    "lower learning_rate, or look at this dataset's flow; the last good"
                    f"one is kept in {self._path.parent / 'checkpoints'}",
                )
            lines.append(json.dumps({"step": step, **values}) + "\n")
        if not self._writes:
            return
        with self._path.open("a") as file:
            file.writelines(lines)
        timing = clock.to_json()
        aside = self._path.with_name("timing.aside")
        aside.write_text(json.dumps(timing) + "\n")
        os.replace(aside, aside.with_suffix(".json"))
        step = pending[-1][0]
        rate = (step - self._first) / max(time.monotonic() - self._start, 1e-9)
        left = duration((self._schedule.steps - step) / rate)
        logging.info(
            "%s step %d  loss %.4f  motion %.3f px  %.2f it/s  data %.1f %%  eta %s",
            self._name,
            step,
            values["loss"],
            values["motion"],
            rate,
            100 * timing["waiting"],
            left,
        )


class StopRequest:
    """Turns the first SIGINT into a polite stop after the current step."""

    def __init__(self) -> None:
        self.requested = False
        self._previous: Any = None

    def __enter__(self) -> "StopRequest":
        if threading.current_thread() is threading.main_thread():
            self._previous = signal.signal(signal.SIGINT, self._ask)
        return self

    def _ask(self, number: int, frame: FrameType | None) -> None:
        logging.warning("stopping after this step; press again to stop at once")
        self.requested = True
        signal.signal(signal.SIGINT, signal.default_int_handler)

    def __exit__(self, *_: object) -> None:
        if self._previous is not None:
            signal.signal(signal.SIGINT, self._previous)
