"""The loop's own clock, its answer to an interrupt, and what watchers are told."""

import io
import json
import os
import signal
import sys
import time

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from imas_jax.conventions import Batch
from imas_jax.errors import Stopped, UserError
from imas_jax.training import loop, parallel, watching
from imas_jax.training.state import create_state


def batch_of(value):
    """Return one pair of frames of one pixel for each of eight devices."""
    flow = np.zeros((8, 1, 1, 1, 2), np.float32)
    frames = np.full((8, 1, 2, 1, 1, 3), value, np.uint8)
    return Batch(frames, flow, flow, None, np.zeros((8, 1), np.int32))


def batches(seconds):
    while True:
        time.sleep(seconds)
        yield batch_of(0)


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
    metrics = {"loss": 1.0, "motion": 1.0}
    with caplog.at_level("INFO"):
        log.write([(5, metrics)], clock)
    told = json.loads((tmp_path / "timing.json").read_text())
    assert told["steps"] == 2
    assert f"data {100 * told['waiting']:.1f} %" in caplog.text


class Notes:
    """A watcher that writes down what it is told."""

    def __init__(self, wanted=()):
        self.told, self._wanted = [], wanted

    def start(self, step):
        self.told.append(("start", step))

    def scalars(self, step, values):
        self.told.append((step, sorted(values)))

    def wants(self, step):
        return step in self._wanted

    def state(self, step, state):
        self.told.append(("state", step, int(state.step)))

    def close(self):
        self.told.append("close")


def counted(steps_until_signal=None, number=signal.SIGINT):
    """Yield batches; send the process a signal while one is drawn."""

    def source(first):
        for step in range(first, 100):
            if step + 1 == steps_until_signal:
                os.kill(os.getpid(), number)
            yield batch_of(step)

    return source


def train(folder, source, watcher=watching.NOBODY, spoil=lambda state, metrics: None):
    """Train a network of one number, which is moved by the batches.

    `spoil` may change what a step returns.
    """
    variables = {"params": {"w": np.ones(1, np.float32)}, "batch_stats": {}}
    optimizer = optax.sgd(0.1)

    def step(state, batch):
        metrics = {"loss": batch.frames.mean(), "motion": batch.frames.mean()}
        moved = jax.tree.map(lambda w: w * 0.5 + batch.frames.mean(), state.params)
        state = state.replace(step=state.step + 1, params=moved)
        return spoil(state, metrics) or (state, metrics)

    schedule = loop.Schedule(6, 5, 2, lambda step: 0.1 - 0.01 * step)
    state = create_state(variables, optimizer, 0, 0.0)
    return loop.train("discover", step, state, source, folder, schedule, watcher)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGUSR1])
def test_a_signal_finishes_the_step_and_the_same_command_continues(tmp_path, number):
    whole = train(tmp_path / "whole", counted())
    handler = signal.getsignal(number)
    with pytest.raises(Stopped, match="step 3 of 6") as error:
        train(tmp_path / "part", counted(steps_until_signal=3, number=number))
    assert "run the same command again" in str(error.value)
    assert error.value.number == number
    assert signal.getsignal(number) is handler
    assert (tmp_path / "part/checkpoints/3").is_dir()
    continued = train(tmp_path / "part", counted())
    assert continued.params["w"] == whole.params["w"]
    lines = (tmp_path / "part/metrics.jsonl").read_text().splitlines()
    assert [json.loads(line)["step"] for line in lines] == [1, 2, 3, 4, 5, 6]
    assert (tmp_path / "whole/metrics.jsonl").read_text().splitlines() == lines


def test_a_signal_at_the_last_step_is_heard(tmp_path):
    with pytest.raises(Stopped, match="step 6 of 6"):
        train(tmp_path, counted(steps_until_signal=6))
    assert int(train(tmp_path, counted()).step) == 6


def test_nothing_goes_to_the_devices_unseen(tmp_path, monkeypatch):
    monkeypatch.setattr(parallel, "send", lambda batch, carried: batch)
    with pytest.raises(jax.errors.JaxRuntimeError, match="Disallowed host-to-device"):
        train(tmp_path, counted())


def test_the_step_is_traced_once(tmp_path):
    traced = []
    train(tmp_path, counted(), spoil=lambda *_: traced.append("a trace"))
    assert len(traced) == 1


def from_step_5(state, value):
    return jnp.where(state.step >= 5, jnp.nan, value)


@pytest.mark.parametrize("name", ["loss", "gradient_norm", "update_norm"])
def test_a_number_that_is_not_finite_ends_training_before_it_is_saved(tmp_path, name):
    def spoil(state, metrics):
        return state, {**metrics, name: from_step_5(state, 1.0)}

    # Step 4 was saved: at the signal's step.
    with pytest.raises(Stopped):
        train(tmp_path, counted(steps_until_signal=4))
    with pytest.raises(UserError, match=f"{name} is nan at step 5") as error:
        train(tmp_path, counted(), spoil=spoil)
    assert "the last good one, of step 4, is kept in" in str(error.value)
    assert int(train(tmp_path, counted()).step) == 6


def test_a_state_that_is_not_finite_is_not_saved(tmp_path):
    def spoil(state, metrics):
        params = jax.tree.map(lambda w: from_step_5(state, w), state.params)
        return state.replace(params=params), metrics

    with pytest.raises(UserError, match="step 5: params/w has 1 not finite") as error:
        train(tmp_path, counted(), spoil=spoil)
    assert "no checkpoint was written before" in str(error.value)
    assert not list((tmp_path / "checkpoints").glob("[0-9]*"))


def test_a_watcher_is_told_what_happens(tmp_path):
    notes = Notes(wanted=(3,))
    train(tmp_path, counted(), notes)
    names = ["learning_rate", "loss", "motion"]
    assert notes.told == [
        ("start", 0),
        (2, names),
        ("state", 3, 3),
        (4, names),
        (5, names),
        (6, names),
        "close",
    ]
    first = json.loads((tmp_path / "metrics.jsonl").read_text().splitlines()[0])
    assert first["learning_rate"] == pytest.approx(0.1)


def test_a_terminal_shows_one_live_line(tmp_path, monkeypatch, caplog):
    screen = io.StringIO()
    screen.isatty = lambda: True
    monkeypatch.setattr(sys, "stderr", screen)
    with caplog.at_level("INFO"):
        train(tmp_path, counted())
    assert "discover" in screen.getvalue()
    assert "motion 5.000 px" in screen.getvalue()
    assert not any("it/s" in record.message for record in caplog.records)
