"""The step on its own; the authors' numbers are in tests/parity."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn

from imas_jax.errors import UserError
from imas_jax.models import densecl
from imas_jax.models.layers import BatchNorm, Conv
from imas_jax.training import contrast, parallel

SETTINGS = contrast.Settings(0.2, 0.9, 0.5, 0, groups=4)
OPTIMIZER = contrast.make_optimizer(0.1, 1e-4)


class Tiny(nn.Module):
    """A backbone of one layer and batch norm."""

    @nn.compact
    def __call__(self, x):
        x = BatchNorm(name="bn")(Conv(6, stride=2, name="conv")(x), True)
        return densecl.Neck(8, 4, name="neck")(nn.relu(x))


def encode(params, stats, x):
    seen, changed = Tiny().apply(
        {"params": params, "batch_stats": stats}, x, mutable=["batch_stats"]
    )
    return seen, changed["batch_stats"]


@functools.cache
def start():
    variables = Tiny().init(jax.random.key(0), jnp.zeros((1, 8, 8, 3)))
    return contrast.create_state(variables, OPTIMIZER, 0, size=16, features=4)


def views():
    one, two = jax.random.split(jax.random.key(1))
    images = jax.random.normal(one, (1, 8, 8, 8, 3))
    return images + 0.3 * jax.random.normal(two, (2, 8, 8, 8, 3))


def run(devices, settings=SETTINGS, steps=2, same_queues=False):
    """Train some steps on one batch; return the state and metrics of each."""
    step = jax.pmap(
        lambda state, q, k: contrast.update(
            state,
            q,
            k,
            encode,
            OPTIMIZER,
            settings,
            jax.random.fold_in(jax.random.key(2), state.step),
        ),
        axis_name=parallel.AXIS,
        devices=jax.local_devices()[:devices],
    )
    state = jax.tree.map(lambda x: jnp.stack([x] * devices), start())
    query, key = (x.reshape(devices, -1, *x.shape[1:]) for x in views())
    states, said = [], []
    for _ in range(steps):
        state, metrics = step(state, query, key)
        if same_queues:
            fresh = jax.tree.map(lambda x: jnp.stack([x] * devices), start().queues)
            state = state.replace(queues=fresh)
        states.append(jax.tree.map(lambda x: np.asarray(x[0]), state))
        said.append({name: float(value[0]) for name, value in metrics.items()})
    return states, said


def test_any_number_of_devices_gives_the_same_step():
    """Batch norm sees groups of the batch, whichever device they are on."""
    one, four = run(1), run(4)
    for a, b in zip(jax.tree.leaves(one), jax.tree.leaves(four), strict=True):
        np.testing.assert_allclose(a, b, rtol=2e-4, atol=2e-6)
    assert int(one[0][-1].step) == 2


def test_keys_take_the_place_of_the_oldest():
    (first, second), _ = run(1)
    before = start().queues
    assert (int(first.queues.pointer), int(second.queues.pointer)) == (8, 0)
    np.testing.assert_array_equal(first.queues.image[8:], before.image[8:])
    np.testing.assert_array_equal(second.queues.image[:8], first.queues.image[:8])
    assert not np.array_equal(first.queues.image[:8], before.image[:8])


def test_keys_come_back_from_the_shuffle_to_their_own_images():
    def embed(frames):
        flat = frames.reshape(frames.shape[0], -1)
        # The mean over this device's share tells which company a view was in.
        company = jnp.broadcast_to(flat.mean(), (flat.shape[0], 1))
        return densecl.Embedding(flat[:, None], company, flat[:, None], flat), {}

    views = jnp.arange(8.0).reshape(4, 2, 1, 1, 1)
    joined, _ = jax.pmap(
        lambda x: contrast.shuffled(embed, x, jax.random.key(5)),
        axis_name=parallel.AXIS,
        devices=jax.local_devices()[:4],
    )(views)
    for device in range(4):
        np.testing.assert_array_equal(joined.pooled[device, :, 0], np.arange(8.0))
    alone = np.repeat(np.arange(8.0).reshape(4, 2).mean(axis=1), 2)
    assert not np.array_equal(joined.image[0, :, 0], alone)


def test_the_key_encoder_averages_parameters_and_keeps_its_own_statistics():
    (first, second), _ = run(1)
    for kind in ("conv", "neck"):
        old, new, average = (
            jax.tree.leaves(tree[kind])
            for tree in (
                first.ema["params"],
                first.params,
                second.ema["params"],
            )
        )
        for k, q, mean in zip(old, new, average, strict=True):
            np.testing.assert_allclose(mean, 0.9 * k + 0.1 * q, atol=1e-6)
    key, query = first.ema["batch_stats"], first.batch_stats
    assert not np.allclose(key["bn"]["mean"], query["bn"]["mean"])


def test_the_first_steps_may_go_without_the_dense_loss():
    settings = contrast.Settings(0.2, 0.9, 0.5, 1, groups=1)
    _, (first, second) = run(1, settings)
    np.testing.assert_allclose(first["loss"], first["image"], rtol=1e-6)
    half = 0.5 * (second["image"] + second["dense"])
    np.testing.assert_allclose(second["loss"], half, rtol=1e-6)


def test_it_learns_to_tell_images_apart():
    # Queues would fill with the batch's own images.
    settings = contrast.Settings(0.2, 0.9, 0.5, 0, groups=1)
    _, said = run(1, settings, steps=30, same_queues=True)
    assert said[-1]["loss"] < 0.8 * said[0]["loss"]
    assert said[-1]["image_first"] >= said[0]["image_first"]


@pytest.mark.parametrize(
    ("groups", "batch", "size", "devices", "fix"),
    [
        (4, 8, 16, 3, "multiple of the devices"),
        (1, 8, 16, 2, "groups=2"),
        (3, 8, 16, 1, "groups="),
        (4, 8, 20, 1, "queue=16"),
    ],
)
def test_numbers_that_do_not_divide_are_refused_with_ones_that_do(
    groups, batch, size, devices, fix
):
    settings = contrast.Settings(0.2, 0.9, 0.5, 0, groups)
    with pytest.raises(UserError) as refusal:
        contrast.check(settings, batch, size, devices)
    assert fix in str(refusal.value)
