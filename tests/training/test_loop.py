"""The loop's own clock: who waits for whom."""

import json
import time

import jax.numpy as jnp
import numpy as np
import pytest

from imas_jax.conventions import Batch
from imas_jax.training import loop


def batches(seconds):
    empty = np.zeros((8, 1), np.float32)
    while True:
        time.sleep(seconds)
        yield Batch(empty, empty, empty, None, empty)


@pytest.mark.parametrize(("data", "step"), [(0.02, 0.0), (0.0, 0.02)])
def test_the_clock_tells_slow_data_from_slow_steps(data, step):
    clock, source = loop.DataClock(), batches(data)
    for _ in range(6):
        clock.draw(source)
        time.sleep(step)
    told = clock.to_json()
    assert told["steps"] == 5
    assert told["seconds"] >= 5 * 0.02
    assert told["waiting"] > 0.8 if data else told["waiting"] < 0.2


def test_the_first_batch_does_not_count():
    clock = loop.DataClock()
    clock.draw(batches(0.05))
    assert clock.to_json() == {"steps": 0, "seconds": 0.0, "waiting": 0.0}


def test_a_log_line_and_a_file_say_how_long_data_took(tmp_path, caplog):
    schedule = loop.Schedule(10, 5, 5)
    log = loop.MetricsLog(tmp_path / "metrics.jsonl", 0, "discover", schedule)
    clock, source = loop.DataClock(), batches(0.01)
    for _ in range(3):
        clock.draw(source)
    metrics = {"loss": jnp.ones(8), "motion": jnp.ones(8)}
    with caplog.at_level("INFO"):
        log.write([(5, metrics)], clock)
    told = json.loads((tmp_path / "timing.json").read_text())
    assert told["steps"] == 2
    assert f"data {100 * told['waiting']:.1f} %" in caplog.text
