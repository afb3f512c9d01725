"""The training loop: batches in, checkpoints and a metrics log out.

A run killed at any moment and started again ends with the same bits: batches and keys
are functions of the step, and the loop starts from the newest sound checkpoint.
"""

import signal
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from types import FrameType
from typing import Any

import jax
from absl import logging

from imas_jax.conventions import Batch
from imas_jax.errors import UserError
from imas_jax.training import parallel
from imas_jax.training.checkpoints import Checkpoints
from imas_jax.training.metrics_log import DataClock, MetricsLog, Schedule
from imas_jax.training.state import TrainState
from imas_jax.training.watching import NOBODY, Watcher

# Steps the host may be ahead of the devices: enough to keep them busy, and few, so that
# a wait for data is one of theirs too.
IN_FLIGHT = 2

Step = Callable[[TrainState, Batch], tuple[TrainState, dict[str, jax.Array]]]


def train(
    name: str,
    step: Step,
    state: TrainState,
    batches: Callable[[int], Iterator[Batch]],
    folder: Path,
    schedule: Schedule,
    watcher: Watcher = NOBODY,
) -> TrainState:
    """Train to `schedule.steps`, continuing from the newest checkpoint in `folder`.

    Args:
        name: Of the stage, for log lines.
        step: Per-device step.
        state: Where to start when there is no checkpoint.
        batches: `batches(first_step)` yields this process's batch of every step.
        folder: Holds `checkpoints/`, `metrics.jsonl` and `timing.json`.
        schedule: Length and rhythm.
        watcher: Is told what happens, in the first process; never asked anything.

    Returns:
        The final state on the host.

    Raises:
        UserError: If a loss is not finite (with its step), or SIGINT asked to stop.
    """
    checkpoints = Checkpoints(folder / "checkpoints")
    try:
        restored = checkpoints.resume(state)
        if restored is not None:
            state = restored
            logging.info("%s: continuing from step %d", name, int(state.step))
        path, first = folder / "metrics.jsonl", int(state.step)
        log = MetricsLog(path, first, name, schedule, watcher)
        watcher.start(first)
        with StopRequest() as stop:
            state = _steps(step, state, batches, checkpoints, schedule, log, stop)
        log.close()
    finally:
        checkpoints.close()
        watcher.close()
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
    log: MetricsLog,
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
        log.look(done, carried)
        if last:
            break
    return parallel.unreplicate(carried)


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
