"""A set on the devices gives the losses of one in memory; one too large is refused."""

import json

import jax
import numpy as np
import optax
import pytest
from tiny import tiny_config

from imas_jax.data.augment import augment
from imas_jax.data.clips import Pair
from imas_jax.data.order import Order
from imas_jax.data.pipeline import MemorySource
from imas_jax.errors import UserError
from imas_jax.training import held, loop, parallel
from imas_jax.training.state import create_state

SIZE, GRID, MASKS = (48, 64), (24, 32), (16, 24)
STEPS, BATCH = 5, 16


@pytest.fixture(scope="module")
def source():
    """Two clips of random pixels; 19 pairs, so that blocks and epochs end anywhere."""
    rng = np.random.default_rng(0)
    clips = (8, 13)
    frames = [rng.integers(0, 256, (n, *SIZE, 3), np.uint8) for n in clips]
    targets = [rng.integers(0, 256, (n, *GRID), np.uint8) for n in clips]
    pairs = [Pair(clip, t, t + 1) for clip, n in enumerate(clips) for t in range(n - 1)]
    flows = list(rng.normal(size=(len(pairs), 2, *GRID, 2)).astype(np.float16))
    order = Order(len(pairs), BATCH, 3, "refine")
    return MemorySource(frames, flows, pairs, order, targets)


def step(state, batch):
    """Pull one number by all that a loss sees."""
    key = jax.random.fold_in(jax.random.key(state.seed), state.step)
    keys = parallel.example_keys(key, batch.pair.shape[0])
    config = tiny_config("clips", "run").augment
    config.photometric = False  # half of what is to be compiled
    sample = augment(batch, keys, config, MASKS, train=True)
    seen = sum(leaf.mean() for leaf in jax.tree.leaves(sample)) + batch.pair.sum()
    loss = parallel.average(seen)
    moved = jax.tree.map(lambda w: 0.5 * w + loss, state.params)
    return state.replace(step=state.step + 1, params=moved), {"loss": loss}


def train(folder, step, batches, steps=STEPS):
    variables = {"params": {"w": np.ones(1, np.float32)}, "batch_stats": {}}
    state = create_state(variables, optax.sgd(0.1), 3, 0.0)
    schedule = loop.Schedule(steps, 100, 1)
    state = loop.train("refine", step, state, batches, folder, schedule)
    lines = (folder / "metrics.jsonl").read_text().splitlines()
    return state.params["w"], [json.loads(line)["loss"] for line in lines]


def test_losses_are_those_of_memory_to_the_bit_also_of_a_run_that_goes_on(
    source, tmp_path
):
    weight, losses = train(tmp_path / "memory", step, source.batches)
    assert len(set(losses)) == STEPS
    batches = held.HeldSource(source, STEPS).batches
    for steps in (2, STEPS):
        found = train(tmp_path / "device", held.drawing(step), batches, steps)
    assert found == (weight, losses)


def test_each_device_draws_its_part_of_every_batch_as_stored(source):
    on_devices = next(held.HeldSource(source, 9).batches(4))
    drawn = jax.pmap(lambda of, step: of.batch(step), axis_name=parallel.AXIS)
    for number in (4, 8):
        batch = drawn(on_devices, parallel.on_each_device(number))
        for one, other in zip(
            jax.tree.leaves(batch),
            jax.tree.leaves(parallel.split(source.batch(number))),
            strict=True,
        ):
            np.testing.assert_array_equal(one, other)
        assert batch.frames.dtype == np.uint8
        assert batch.flow_forward.dtype == np.float16


def lies(array):
    """Return where an array's parts are in memory."""
    return [part.data.unsafe_buffer_pointer() for part in array.addressable_shards]


def test_the_host_sends_nothing_of_a_batch(source):
    batches = held.HeldSource(source, 9).batches(0)
    first, second = next(batches), next(batches)
    assert first is second
    sent = parallel.send(parallel.split(first), first.order)
    for one, other in zip(jax.tree.leaves(sent), jax.tree.leaves(first), strict=True):
        assert lies(one) == lies(other)


def test_a_set_larger_than_a_device_is_refused_before_it_is_sent(source, monkeypatch):
    needed = held.HeldSource(source, 9).needed()
    pixels = sum(one.nbytes for one in (*source.frames, *source.targets))
    assert needed == pixels + sum(f.nbytes for f in source.flows) + 4 * 9 * BATCH
    monkeypatch.setattr(parallel, "free_memory", lambda: needed)
    held.HeldSource(source, 9)
    monkeypatch.setattr(parallel, "free_memory", lambda: needed - 1)
    with pytest.raises(UserError, match=r"data\.source=device: 0\.00 GB") as caught:
        held.HeldSource(source, 9)
    assert "--config.data.source=memory" in caught.value.fix


def test_processors_that_stand_for_devices_share_the_hosts_memory(monkeypatch):
    monkeypatch.setattr(held.memory, "limit", lambda: held.memory.Limit(1600, "a job"))
    assert parallel.devices_here() == 8
    held.check_room(100, 2)
    with pytest.raises(UserError, match=r"data\.source=device needs .* 2 processes"):
        held.check_room(101, 2)


def test_the_fullest_device_counts(monkeypatch):
    class Device:
        def __init__(self, used):
            self.used = used

        def memory_stats(self):
            return self.used and {"bytes_limit": 100, "bytes_in_use": self.used}

    monkeypatch.setattr(parallel.jax, "local_devices", lambda: [Device(10), Device(30)])
    assert parallel.free_memory() == 70
    monkeypatch.setattr(parallel.jax, "local_devices", lambda: [Device(None)])
    assert parallel.free_memory() is None
