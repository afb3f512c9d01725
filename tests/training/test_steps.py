import functools
from pathlib import Path

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from tiny import tiny_config

from imas_jax.conventions import Batch, Sample
from imas_jax.errors import UserError
from imas_jax.models.imas import make_model, mask_size
from imas_jax.training import parallel, steps
from imas_jax.training.state import create_state, make_optimizer, polynomial_schedule


@pytest.fixture
def config():
    return tiny()


def tiny():
    return tiny_config(Path("clips"), Path("run"))  # neither is touched


EMA = 0.9


def random_batch(count=8, target=False, seed=0):
    rng = np.random.default_rng(seed)
    flow = rng.normal(size=(2, count, 24, 32, 2)).astype(np.float16)
    return Batch(
        frames=rng.integers(0, 255, (count, 2, 48, 64, 3)).astype(np.uint8),
        flow_forward=flow[0],
        flow_backward=flow[1],
        target=rng.integers(0, 255, (count, 2, 12, 16)).astype(np.uint8)
        if target
        else None,
        pair=np.arange(count),
    )


def start(config, optimizer, ema=0.0):
    """Start from drawn weights: nothing is compiled for it."""
    init = functools.partial(make_model(config).init, train=False)
    shapes = jax.eval_shape(init, jax.random.key(0), jnp.zeros((1, 2, 32, 48, 3)))
    rng = np.random.default_rng(0)

    def draw(path, leaf):
        if leaf.ndim == 4:
            spread = np.prod(leaf.shape[:3]) ** -0.5
            return jnp.asarray(rng.normal(0, spread, leaf.shape), leaf.dtype)
        centre = 1.0 if path[-1].key in ("scale", "var") else 0.0
        return jnp.asarray(rng.normal(centre, 0.1, leaf.shape), leaf.dtype)

    variables = jax.tree_util.tree_map_with_path(draw, shapes)
    return create_state(variables, optimizer, 0, ema)


@functools.cache
def take_steps(stage, devices):
    """Take two steps on the first `devices` devices; return both states and metrics.

    Plain SGD: Adam would hide a gradient that is scaled by the number of devices.
    """
    config, optimizer = tiny(), optax.sgd(0.1)
    config.model.dropout = 0.5  # of the same channels on any number of devices
    model = make_model(config, parallel.AXIS)
    loss = steps.make_loss(model, config, stage, (1,))
    size = mask_size(config.model, tuple(config.augment.crop))
    step = steps.make_step(loss, optimizer, config, EMA, size)
    traces = []

    def counted(state, batch):
        traces.append(len(traces))
        return step(state, batch)

    chosen = jax.local_devices()[:devices]
    run = parallel.run_on_devices(counted, chosen)
    state = parallel.replicate(start(config, optimizer, EMA), chosen)
    taken = []
    for number in range(2):
        batch = random_batch(target=stage == "refine", seed=number)
        state, metrics = run(state, parallel.split(batch, devices))
        taken.append(parallel.unreplicate((state, metrics)))
        first = len(traces) if number == 0 else first
    assert len(traces) == first, "a later step was traced again"
    return taken


def test_guidance_adds_the_weighted_distance_of_one_channel_to_the_evidence(config):
    model = make_model(config)
    state = start(config, optax.sgd(0.1))
    size = mask_size(config.model, tuple(config.augment.crop))
    rng = np.random.default_rng(0)
    flow = jnp.asarray(rng.normal(size=(2, 2, *size, 2)), jnp.float32)
    frames = jnp.asarray(rng.normal(size=(2, 2, 32, 48, 3)), jnp.float32)
    target = jnp.asarray(rng.uniform(size=(2, 2, *size)), jnp.float32)
    sample = Sample(frames, flow[0], flow[1], target)

    def told(weight):
        config.discover.evidence_weight = weight
        loss = steps.make_loss(model, config, "discover", (1,), train=False)
        return loss(state.params, state.batch_stats, sample, jax.random.key(0))[1][0]

    alone, guided = told(0.0), told(3.0)
    assert "evidence" not in alone
    variables = {"params": state.params, "batch_stats": state.batch_stats}
    logits = model.apply(variables, frames, train=False).logits
    distance = jnp.mean((jax.nn.softmax(logits)[..., 1] - target) ** 2)
    np.testing.assert_allclose(guided["evidence"], distance, rtol=1e-5)
    np.testing.assert_allclose(guided["loss"], alone["loss"] + 3 * distance, rtol=1e-5)


@pytest.mark.parametrize("stage", ["discover", "refine"])
def test_without_the_motion_loss_frames_are_seen_one_by_one(config, stage):
    config.discover.evidence_weight = 1.0
    model = make_model(config)
    state = start(config, optax.sgd(0.1))
    size = mask_size(config.model, tuple(config.augment.crop))
    rng = np.random.default_rng(0)
    nothing = jnp.full((2, *size, 2), jnp.nan)
    frames = jnp.asarray(rng.normal(size=(2, 2, 32, 48, 3)), jnp.float32)
    target = jnp.asarray(rng.uniform(size=(2, 2, *size)), jnp.float32)

    def gradients(weight, flow):
        config[stage].motion_weight = weight
        loss = steps.make_loss(model, config, stage, (1,))
        sample = Sample(frames, flow, flow, target)
        gradient = jax.grad(loss, has_aux=True)
        return gradient(state.params, state.batch_stats, sample, jax.random.key(0))

    grads, (metrics, batch_stats) = gradients(0.0, nothing)
    assert "motion" not in metrics
    assert np.isfinite(metrics["loss"])
    assert not any(leaf.any() for leaf in jax.tree.leaves(grads["residual_head"]))
    assert any(leaf.any() for leaf in jax.tree.leaves(grads["backbone"]))
    # A sliver of the motion loss changes nothing but by that sliver.
    others, (_, same) = gradients(1e-9, jnp.zeros_like(nothing))
    chex.assert_trees_all_close(grads, others, rtol=1e-4, atol=1e-7)
    del same["residual_head"], batch_stats["residual_head"]
    chex.assert_trees_all_close(batch_stats, same, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("stage", ["discover", "refine"])
@pytest.mark.parametrize("number", [0, 1])
def test_eight_devices_take_the_steps_of_one(stage, number):
    one, metrics_1 = take_steps(stage, 1)[number]
    many, metrics_8 = take_steps(stage, 8)[number]
    chex.assert_trees_all_close(metrics_1, metrics_8, rtol=1e-5, atol=1e-6)
    chex.assert_trees_all_close(one.params, many.params, rtol=1e-5, atol=1e-5)
    chex.assert_trees_all_close(one.batch_stats, many.batch_stats, rtol=1e-5, atol=1e-5)


def test_shapes_are_traced_once():
    state, _ = take_steps("discover", 8)[-1]  # which counts its traces
    assert int(state.step) == 2


def test_the_average_lags_behind_and_takes_statistics_along(config):
    state, _ = take_steps("discover", 1)[0]
    first = start(config, optax.sgd(0.1))
    # Averaged before the update (authors' order): parameters have not moved yet.
    chex.assert_trees_all_close(state.ema["params"], first.params, rtol=1e-6)
    expected = jax.tree.map(
        lambda old, new: EMA * old + (1 - EMA) * new,
        first.batch_stats,
        state.batch_stats,
    )
    chex.assert_trees_all_close(state.ema["batch_stats"], expected, rtol=1e-5)


def flat_sample(flow):
    """Wrap constant forward flow; backward is its opposite."""
    field = jnp.broadcast_to(jnp.asarray(flow, jnp.float32), (2, 8, 12, 2))
    frames = np.random.default_rng(0).normal(size=(2, 2, 32, 48, 3))
    return Sample(jnp.asarray(frames, jnp.float32), field, -field, None)


def test_uniform_flow_costs_nothing_without_learned_pooling(config):
    config.model.pathway = "none"
    model = make_model(config)
    state = start(config, optax.sgd(0.1))
    loss = jax.jit(steps.make_loss(model, config, "discover"))
    total, (metrics, _) = loss(
        state.params, state.batch_stats, flat_sample([3.0, -2.0]), jax.random.key(0)
    )
    assert float(total) < 1e-5
    assert float(metrics["motion_forward"]) < 1e-5


def test_the_target_flow_is_clamped_too(config):
    config.model.pathway = "none"
    model = make_model(config)
    state = start(config, optax.sgd(0.1))
    loss = jax.jit(steps.make_loss(model, config, "discover"))
    rng = np.random.default_rng(1)
    field = jnp.where(rng.random((2, 8, 12, 2)) < 0.5, 25.0, 300.0)
    sample = flat_sample([0.0, 0.0]).replace(flow_forward=field, flow_backward=field)
    total, _ = loss(state.params, state.batch_stats, sample, jax.random.key(0))
    assert float(total) < 1e-4  # everything beyond 20 px is 20 px: a uniform flow


def test_one_direction_is_half_of_the_symmetric_loss(config):
    model = make_model(config)
    state = start(config, optax.sgd(0.1))
    rng = np.random.default_rng(2)
    sample = flat_sample([0.0, 0.0]).replace(
        flow_forward=jnp.asarray(rng.normal(size=(2, 8, 12, 2)), jnp.float32),
        flow_backward=jnp.asarray(rng.normal(size=(2, 8, 12, 2)), jnp.float32),
    )
    args = (state.params, state.batch_stats, sample, jax.random.key(0))
    both, (parts, _) = jax.jit(steps.make_loss(model, config, "discover"))(*args)
    config.loss.symmetric = False
    forward, _ = jax.jit(steps.make_loss(model, config, "discover"))(*args)
    assert float(forward) == pytest.approx(float(parts["motion_forward"]), rel=1e-6)
    assert float(both) == pytest.approx(
        float(parts["motion_forward"] + parts["motion_backward"]), rel=1e-6
    )


def test_gradients_agree_with_finite_differences(config):
    with jax.enable_x64(True):
        config.augment.photometric = False
        model = make_model(config)
        state = start(config, optax.sgd(0.1))
        wide = jax.tree.map(lambda x: jnp.asarray(x, jnp.float64), state.params)
        stats = jax.tree.map(lambda x: jnp.asarray(x, jnp.float64), state.batch_stats)
        rng = np.random.default_rng(3)
        sample = Sample(
            jnp.asarray(rng.normal(size=(2, 2, 32, 48, 3))),
            jnp.asarray(rng.normal(size=(2, 8, 12, 2))),
            jnp.asarray(rng.normal(size=(2, 8, 12, 2))),
            None,
        )
        loss = steps.make_loss(model, config, "discover")

        @jax.jit
        @jax.value_and_grad
        def value_and_slopes(params):
            return loss(params, stats, sample, jax.random.key(0))[0]

        direction = jax.tree.map(
            lambda x: jnp.asarray(np.random.default_rng(4).normal(size=x.shape)), wide
        )
        gradient = value_and_slopes(wide)[1]
        predicted = sum(
            jnp.vdot(a, b)
            for a, b in zip(
                jax.tree.leaves(gradient), jax.tree.leaves(direction), strict=True
            )
        )
        small = 1e-6

        def at(sign):
            moved = jax.tree.map(lambda x, d: x + sign * small * d, wide, direction)
            return value_and_slopes(moved)[0]

        measured = (at(1.0) - at(-1.0)) / (2 * small)
        # ReLU and L1 have kinks; a step of 1e-6 crosses few of them.
        assert float(predicted) == pytest.approx(float(measured), rel=1e-3)


@pytest.mark.parametrize("processes", ["auto", "here", "a:1,two,0"])
def test_processes_that_cannot_be_joined_are_one_message(monkeypatch, processes):
    def initialize(*arguments, **more):
        raise ValueError("coordinator_address should be defined.")  # JAX's own words

    monkeypatch.setattr(jax.distributed, "initialize", initialize)
    monkeypatch.setattr(jax.config, "update", lambda *arguments: None)
    with pytest.raises(UserError, match="distributed = "):
        parallel.join(processes)


def test_a_batch_that_does_not_divide_is_refused():
    parallel.check_batch(16)
    with pytest.raises(UserError, match=r"12 pairs on 8 device"):
        parallel.check_batch(12)


def test_the_schedule_is_constant_within_an_epoch_and_ends_at_its_minimum():
    rate = polynomial_schedule(1e-4, 1e-6, 0.9, steps=100, steps_per_decay=10)
    assert float(rate(jnp.asarray(0))) == pytest.approx(1e-4)
    assert float(rate(jnp.asarray(9))) == pytest.approx(1e-4)
    expected = (1e-4 - 1e-6) * (1 - 5 / 10) ** 0.9 + 1e-6
    assert float(rate(jnp.asarray(55))) == pytest.approx(expected, rel=1e-5)
    assert float(rate(jnp.asarray(1000))) == pytest.approx(1e-6, rel=1e-5)


def test_weight_decay_is_added_to_the_gradient_not_to_the_step():
    # Coupled: with a zero gradient Adam's first step is the full learning rate.
    optimizer = make_optimizer(1e-2, weight_decay=1e-4)
    params = {"w": jnp.asarray([2.0])}
    updates, _ = optimizer.update({"w": jnp.zeros(1)}, optimizer.init(params), params)
    assert float(updates["w"][0]) == pytest.approx(-1e-2, rel=1e-3)


def test_example_keys_do_not_depend_on_the_number_of_devices():
    def keys(batch):
        return jax.random.key_data(
            parallel.example_keys(jax.random.key(3), batch.shape[0])
        )

    def on(devices):
        out = jax.pmap(
            keys, axis_name=parallel.AXIS, devices=jax.local_devices()[:devices]
        )(np.zeros((devices, 8 // devices)))
        return np.asarray(out).reshape(8, -1)

    np.testing.assert_array_equal(on(1), on(8))
    assert len(np.unique(on(1), axis=0)) == 8
