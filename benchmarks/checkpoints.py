"""How long a training step waits for a checkpoint.

    python benchmarks/checkpoints.py --megabytes=474

Trains a state of that size (474 MB is stage 1's of configs/davis.py) with a simulated
device: a step sleeps, as a host does beside an accelerator. Rows: no checkpoint, each
written before the next step begins, each written beside the steps, as training does.
The first step, which compiles, is left out. Writes benchmarks/results/checkpoints.json.
"""

import json
import os
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from absl import app, flags

from imas_jax.conventions import Batch
from imas_jax.training import checkpoints, loop
from imas_jax.training.state import TrainState, create_state

MEGABYTES = flags.DEFINE_integer("megabytes", 474, "of the state")
SECONDS = flags.DEFINE_float("seconds", 0.1, "a step takes")
STEPS = flags.DEFINE_integer("steps", 120, "steps a row")
EVERY = flags.DEFINE_integer("every", 40, "steps between checkpoints")
OUT = flags.DEFINE_string("out", "benchmarks/results/checkpoints.json", "JSON file")
TENSORS = 160  # as many as a ResNet-50 has


class Waiting(checkpoints.Checkpoints):
    """Writes as training did before: the next step begins when all is on disk."""

    def save(self, state: TrainState) -> None:
        """Write, and wait."""
        super().save(state)
        self.steps()


def main(argv: list[str]) -> None:
    del argv
    rows = [
        measure("none", checkpoints.Checkpoints, STEPS.value),
        measure("waited for", Waiting, EVERY.value),
        measure("beside the steps", checkpoints.Checkpoints, EVERY.value),
    ]
    report = {
        "cores": len(os.sched_getaffinity(0)),
        "megabytes": MEGABYTES.value,
        "step_seconds": SECONDS.value,
        "checkpoint_every": EVERY.value,
        "rows": rows,
    }
    Path(OUT.value).write_text(json.dumps(report, indent=1) + "\n")
    print("| checkpoints | step, median ms | longest ms | all steps, s |")
    print("|---|---:|---:|---:|")
    for row in rows:
        print(
            f"| {row['checkpoints']} | {row['median_ms']:.0f} "
            f"| {row['longest_ms']:.0f} | {row['seconds']:.1f} |"
        )


def measure(name: str, kind: type, every: int) -> dict[str, Any]:
    """Train; return what steps took. The last step, which always saves, is left out."""
    drawn: list[float] = []

    def batches(first: int) -> Iterator[Batch]:
        value = np.zeros((jax.local_device_count(), 1), np.float32)
        for _ in range(first, STEPS.value):
            time.sleep(SECONDS.value)
            drawn.append(time.monotonic())
            yield Batch(value, value, value, None, value)

    def step(state: TrainState, batch: Batch) -> tuple[TrainState, dict[str, Any]]:
        return state.replace(step=state.step + 1), {"loss": jnp.mean(batch.frames)}

    size = MEGABYTES.value * 250_000 // TENSORS
    rng = np.random.default_rng(0)
    params = {
        f"{i}": rng.standard_normal(size).astype(np.float32) for i in range(TENSORS)
    }
    state = create_state(
        {"params": params, "batch_stats": {}}, optax.sgd(0.1), seed=0, ema=0.0
    )
    loop.Checkpoints = kind
    with tempfile.TemporaryDirectory() as folder:
        schedule = loop.Schedule(STEPS.value, every, STEPS.value)
        loop.train(name, step, state, batches, Path(folder), schedule)
    took = np.diff(drawn[1:])
    return {
        "checkpoints": name,
        "median_ms": float(np.median(took) * 1000),
        "longest_ms": float(took.max() * 1000),
        "seconds": float(took.sum()),
    }


if __name__ == "__main__":
    app.run(main)
