"""A run of two processes, small enough to be stopped in every way.

As a program it is one of the two: `python two_processes.py HOST:PORT INDEX WORK FOLDER
STEPS EVERY` does the work `train`, `wait`, `refuse` or `hang` in a folder; training
takes so many steps, and saves a checkpoint every so many.
"""

import os
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np

STEPS = 40
HEARTBEAT = 5  # seconds; 60 in earnest
PATIENCE = 10  # seconds; 1800 in earnest


def start(
    work: str, folder: Path, steps: int = STEPS, every: int = 30
) -> list[subprocess.Popen]:
    """Start both processes, one device each."""
    environment = os.environ | {
        "PYTHONPATH": str(Path(__file__).parents[1]),
        "XLA_FLAGS": "--xla_force_host_platform_device_count=1",
        "JAX_PLATFORMS": "cpu",
    }
    address = f"127.0.0.1:{free_port()}"
    told = str(folder), str(steps), str(every)
    return [
        subprocess.Popen(
            [*(sys.executable, __file__, address, str(index), work), *told],
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        for index in range(2)
    ]


def free_port() -> int:
    """Return a port that nothing listens to."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return free.getsockname()[1]


def ended(
    processes: list[subprocess.Popen], limit: float
) -> tuple[list[int], list[str]]:
    """Wait for processes; return their codes and what they said."""
    hopeless = threading.Timer(limit, lambda: [p.kill() for p in processes])
    hopeless.start()
    said = [process.communicate()[0] for process in processes]
    hopeless.cancel()
    return [process.returncode for process in processes], said


def wait_until(ready, limit: float) -> None:
    """Return as soon as `ready()`."""
    end = time.monotonic() + limit
    while not ready():
        assert time.monotonic() < end, "it never came to where it is stopped"
        time.sleep(0.01)


def expected(steps: int) -> np.float32:
    """Return the number that `steps` steps of training learn."""
    learned = np.float32(1)
    for step in range(steps):
        learned = learned * np.float32(0.5) + np.float32(step)
    return learned


def _train(folder: Path, steps: int, every: int) -> None:
    """Train a network of one number, which is moved by the batches and logged."""
    import jax
    import optax

    from imas_jax.conventions import Batch
    from imas_jax.training import loop
    from imas_jax.training.state import create_state

    def batches(first):
        for step in range(first, steps):
            time.sleep(0.03)
            values = np.full((1, 1), step, np.float32)
            yield Batch(values, values, values, None, values)

    def step(state, batch):
        frames = jax.lax.pmean(batch.frames[0], "devices")
        moved = jax.tree.map(lambda w: w * 0.5 + frames, state.params)
        metrics = {"loss": state.params["w"][0]}
        return state.replace(step=state.step + 1, params=moved), metrics

    variables = {"params": {"w": np.ones(1, np.float32)}, "batch_stats": {}}
    state = create_state(variables, optax.sgd(0.1), 0, 0.0)
    schedule = loop.Schedule(steps, every, 1)
    loop.train("discover", step, state, batches, folder, schedule)


def _wait(folder: Path) -> None:
    """The second process waits while the first works, as it does for the CRF."""
    from imas_jax.training import parallel

    if parallel.process()[0] == 0:
        (folder / "working").touch()
        time.sleep(600)
    parallel.wait_for_all()


def _refuse(folder: Path) -> None:
    """The first process finds something wrong while the second waits for it."""
    from imas_jax.errors import UserError
    from imas_jax.training import parallel

    if parallel.process()[0] == 0:
        raise UserError("no room on the disk", "room", "make room")
    parallel.wait_for_all()


def _hang(folder: Path) -> None:
    """The second process never comes to where the first waits for it."""
    from imas_jax.training import parallel

    if parallel.process()[0] == 1:
        time.sleep(600)
    parallel.wait_for_all()


def main(
    address: str, index: str, work: str, folder: str, steps: str, every: str
) -> None:
    """Be one of the two processes."""
    from imas_jax import commandline, errors
    from imas_jax.training import parallel, stopping, together

    commandline.start_logging()
    stopping.raise_when_asked()
    parallel.HEARTBEAT = HEARTBEAT
    where = Path(folder)
    works = {
        "train": lambda: _train(where, int(steps), int(every)),
        "wait": lambda: _wait(where),
        "refuse": lambda: _refuse(where),
        "hang": lambda: _hang(where),
    }
    try:
        patience = PATIENCE if work == "hang" else 0
        with together.joined(f"{address},2,{index}", patience):
            works[work]()
    except errors.Stopped as error:
        text, code = errors.last_words(error)
        sys.stderr.write(f"{text}\n")
        sys.exit(code)


if __name__ == "__main__":
    main(*sys.argv[1:])
