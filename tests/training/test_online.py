"""Targets made while training: whose masks they are of; a kill changes none of them."""

import itertools
import signal
import time
from concurrent.futures import Future

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from imas_jax.conventions import Batch
from imas_jax.errors import Stopped
from imas_jax.training import loop, parallel, steps
from imas_jax.training.metrics_log import DataClock
from imas_jax.training.online import OnlineTargets
from imas_jax.training.state import create_state

EMA, SIZE = 0.75, (4, 6)


def source(first):
    """Yield batches whose frames are filled with their step, without targets."""
    count = jax.local_device_count()
    for step in itertools.count(first):
        frames = np.full((count, 2, *SIZE, 3), step, np.uint8)
        flow = np.zeros((count, *SIZE, 2), np.float32)
        yield Batch(frames, flow, flow, None, np.arange(count))


def interrupted(at):
    """Yield the same batches; ctrl-C comes when number `at` is drawn."""

    def batches(first):
        for step, batch in enumerate(source(first), start=first):
            if step == at:
                signal.raise_signal(signal.SIGINT)
            yield batch

    return batches


class Network:
    """One number, pulled by frames and targets; notes what its teacher saw and said."""

    def __init__(self):
        self.seen = []

    def look(self, variables, frames):
        return jnp.broadcast_to(variables["params"]["w"], frames.shape[:-1])

    def refine(self, frames, masks):
        self.seen.append((int(frames.max()), float(masks.max())))
        assert masks.shape == frames.shape[:-1]
        return np.round(10 * masks).astype(np.uint8) + frames[..., 0]

    def train(self, folder, batches, length=6):
        optimizer = optax.sgd(0.1)

        def step(state, batch):
            pull = parallel.average(batch.target.astype(jnp.float32).mean())
            metrics = {"loss": pull, "target": pull}
            grads = {"w": -pull[None]}
            return steps.apply_gradients(state, grads, {}, optimizer, EMA), metrics

        variables = {"params": {"w": np.ones(1, np.float32)}, "batch_stats": {}}
        state = create_state(variables, optimizer, 0, EMA, online=True)
        schedule = loop.Schedule(length, 100, 2)
        online = OnlineTargets(self.look, self.refine)
        return loop.train(
            "refine", step, state, batches, folder, schedule, online=online
        )


def test_a_batch_gets_targets_of_its_own_frames_by_the_teacher_one_update_late(
    tmp_path,
):
    network = Network()
    network.train(tmp_path, source)
    # The same by hand: numbers and averages before every update.
    w, ema = [1.0], [1.0]
    for n in range(6):
        target = np.round(10 * ema[max(n - 1, 0)]) + n
        ema.append(EMA * ema[-1] + (1 - EMA) * w[-1])
        w.append(w[-1] + 0.1 * target)
    expected = [(n, ema[max(n - 1, 0)]) for n in range(6)]
    assert [frame for frame, _ in network.seen] == [frame for frame, _ in expected]
    np.testing.assert_allclose(
        [mask for _, mask in network.seen], [mask for _, mask in expected], rtol=1e-6
    )
    assert len({mask for _, mask in network.seen}) > 3  # the teacher moves


@pytest.mark.parametrize("at", [1, 2, 4])
def test_an_interrupted_run_ends_with_the_bits_of_a_whole_one(tmp_path, at):
    whole = Network().train(tmp_path / "whole", source)
    with pytest.raises(Stopped, match="run the same command again"):
        Network().train(tmp_path / "part", interrupted(at))
    continued = Network().train(tmp_path / "part", source)
    assert jax.tree.structure(continued) == jax.tree.structure(whole)
    for one, other in zip(
        jax.tree.leaves(continued), jax.tree.leaves(whole), strict=True
    ):
        np.testing.assert_array_equal(one, other)


def test_a_state_carries_no_teacher_where_none_is_asked_for():
    variables = {"params": {"w": np.ones(1, np.float32)}, "batch_stats": {}}
    plain = create_state(variables, optax.sgd(0.1), 0, EMA)
    online = create_state(variables, optax.sgd(0.1), 0, EMA, online=True)
    grads = {"w": np.ones(1, np.float32)}
    for state, wanted in ((plain, None), (online, online.ema)):
        moved = steps.apply_gradients(state, grads, {}, optax.sgd(0.1), EMA)
        assert moved.teacher is wanted


@pytest.mark.parametrize(("finished_after", "waited"), [(None, 0.0), (0.02, 0.03)])
def test_only_the_time_in_which_devices_have_nothing_to_do_is_waiting(
    finished_after, waited
):
    def batches():
        for batch in source(0):
            time.sleep(0.05)
            yield batch

    clock, drawn = DataClock(), batches()
    clock.draw(drawn)
    for _ in range(3):
        busy: Future[float] = Future()
        if finished_after is not None:
            busy.set_result(time.monotonic() + finished_after)
        clock.draw(drawn, busy)
    told = clock.to_json()
    assert told["waiting"] * told["seconds"] == pytest.approx(3 * waited, abs=0.03)
