"""The training loop: batches in, checkpoints and a metrics log out.

A run killed at any moment and started again ends with the same bits: batches and keys
are functions of the step, and the loop starts from the newest sound checkpoint.
"""

import collections
import math
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from pathlib import Path
from typing import Any

import jax
import numpy as np
from absl import logging

from imas_jax import progress
from imas_jax.errors import Stopped, UserError
from imas_jax.training import parallel
from imas_jax.training.checkpoints import Checkpoints
from imas_jax.training.metrics_log import DataClock, Metrics, MetricsLog, Schedule
from imas_jax.training.online import OnlineTargets
from imas_jax.training.state import TrainState
from imas_jax.training.stopping import StopRequest
from imas_jax.training.watching import NOBODY, Watcher

# Steps the host may be ahead of the devices: enough to keep them busy, and few, so that
# a wait for data is one of theirs too.
IN_FLIGHT = 2

# Of a `TrainState`, or of one with more in it (training/contrast.py), to the same; fed
# with batches, or with what the devices hold to draw them from (training/held.py).
Step = Callable[[Any, Any], tuple[Any, dict[str, jax.Array]]]


def train(
    name: str,
    step: Step,
    state: TrainState,
    batches: Callable[[int], Iterator[Any]],
    folder: Path,
    schedule: Schedule,
    watcher: Watcher = NOBODY,
    online: OnlineTargets | None = None,
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
        online: Gives batches their targets, if they do not come with them.

    Returns:
        The final state on the host.

    Raises:
        UserError: If a loss, a gradient, an update or the state is not finite (with
            its step); nothing of it is saved.
        Stopped: If a signal in any process asked to stop; the state is saved, and all
            processes stop at the same step.
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
            state = _steps(
                name, step, state, batches, checkpoints, schedule, log, stop, online
            )
            checkpoints.finish()
        log.close()
    finally:
        checkpoints.close()
        watcher.close()
    if stop.number:
        raise Stopped(
            stop.number,
            f"{name} was interrupted at step {int(state.step)} of {schedule.steps}, "
            "which is saved; run the same command again: it continues from this step",
            stop.agreed,
        )
    return state


def _steps(
    name: str,
    step: Step,
    state: TrainState,
    batches: Callable[[int], Iterator[Any]],
    checkpoints: Checkpoints,
    schedule: Schedule,
    log: MetricsLog,
    stop: StopRequest,
    online: OnlineTargets | None,
) -> TrainState:
    """Run the remaining steps; save at the end, at the rhythm, and when asked to."""
    first = int(state.step)
    if first >= schedule.steps:
        # No steps asked for: weights from a file, as is.
        if not checkpoints.steps() and parallel.process()[0] == 0:
            checkpoints.save(state)
        return state
    run = parallel.run_on_devices(_telling(step))
    carried = parallel.replicate(state)
    pending: list[tuple[int, Any]] = []
    told: collections.deque[jax.Array] = collections.deque()
    source, clock = batches(first), DataClock()
    busy: Future[float] | None = None
    if online is not None:
        source = online.follow(source, lambda: carried)
    for done in range(first + 1, schedule.steps + 1):
        batch = parallel.split(clock.draw(source, busy))
        signal = parallel.on_each_device(stop.number)
        fed = parallel.send((batch, signal), carried)
        # Whatever else went to the devices would go at every step, unseen.
        progress.beat(f"{name} step {done}")
        with jax.transfer_guard_host_to_device("disallow"), progress.waiting():
            carried, metrics, heard = run(carried, fed)
        if online is not None:
            busy = online.finished(metrics)
        pending.append((done, metrics))
        told.append(heard)
        asked = stop.number if parallel.process()[1] == 1 else 0
        if len(told) > IN_FLIGHT:
            with progress.waiting():
                asked = asked or int(told.popleft()[0])
        last = done == schedule.steps or asked
        save = last or done % schedule.checkpoint_every == 0
        if save or done % schedule.log_every == 0:
            with progress.waiting():
                values = [(n, _to_host(metrics)) for n, metrics in pending]
            _check_finite(name, values, checkpoints)
            log.write(values, clock)
            pending = []
        checkpoints.look()
        if save and parallel.process()[0] == 0:
            checkpoints.save(parallel.unreplicate(carried))
        log.look(done, carried)
        if last:
            stop.agreed = bool(asked)
            stop.number = asked or stop.number
            break
    return parallel.unreplicate(carried)


def _to_host(metrics: dict[str, jax.Array]) -> Metrics:
    """Fetch the metrics of a step; they are the same on all devices."""
    return {name: float(np.asarray(value)[0]) for name, value in metrics.items()}


def _check_finite(
    stage: str, values: list[tuple[int, Metrics]], checkpoints: Checkpoints
) -> None:
    """Refuse to go on with what would only be saved and continued for ever."""
    for step, metrics in values:
        for name, value in metrics.items():
            if not math.isfinite(value):
                raise UserError(
                    f"{stage}: {name} is {value} at step {step}",
                    "finite losses, gradients and updates",
                    f"lower {stage}.learning_rate, or look at this data set's flow; "
                    + checkpoints.last_good(),
                )


def _telling(step: Step) -> Callable[..., tuple[TrainState, dict[str, Any], jax.Array]]:
    """Let a step tell every process which signal one of them has got, 0 for none.

    They hear it of the same step, and so stop at the same one. It costs nothing: the
    number goes with the gradients.
    """

    def run(
        state: TrainState, fed: tuple[Any, jax.Array]
    ) -> tuple[TrainState, dict[str, Any], jax.Array]:
        batch, signal = fed
        return (*step(state, batch), parallel.largest(signal))

    return run
