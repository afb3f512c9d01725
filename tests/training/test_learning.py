"""The method learns: a textured square that moves is found from its flow alone."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from tiny import tiny_config

from configs import amd
from imas_jax.conventions import Batch
from imas_jax.data.augment import eval_sample
from imas_jax.models.imas import make_model, mask_size
from imas_jax.training import parallel, steps
from imas_jax.training.state import create_state, make_optimizer

SIZE, SIDE = (64, 96), 32


def toy(rng, count):
    """Render pairs in which a striped square moves right over a blotchy ground.

    The square's place is a multiple of 4 px, so its mask is exact at 1/4 resolution.
    """
    h, w = SIZE
    frames = np.zeros((count, 2, h, w, 3), np.uint8)
    flow = np.zeros((count, h, w, 2), np.float16)
    truth = np.zeros((count, h, w), bool)
    stripes = (np.indices((SIDE, SIDE)).sum(0) // 4 % 2 * 120 + 90).astype(np.uint8)
    for n in range(count):
        blotches = rng.integers(30, 160, (h // 8, w // 8, 3), dtype=np.uint8)
        frames[n] = np.kron(blotches, np.ones((8, 8, 1), np.uint8))
        y, x = (
            4 * rng.integers(0, (h - SIDE) // 4),
            4 * rng.integers(0, (w - SIDE) // 4),
        )
        for t in range(2):
            left = x + 4 * t
            frames[n, t, y : y + SIDE, left : left + SIDE] = stripes[..., None]
        truth[n, y : y + SIDE, x : x + SIDE] = True
        flow[n, truth[n]] = (4.0, 0.0)
    back = np.zeros_like(flow)
    back[:, :, 4:] = -flow[:, :, :-4]
    return Batch(frames, flow, back, None, np.arange(count)), truth


def learned_jaccard(config, steps_taken, learning_rate, flow=True):
    """Train on the toy; return J of the best channel in places it has not seen."""
    config.model.update({"width": 8, "head_width": 16, "channels": 2, "dropout": 0.0})
    config.augment.update(
        {"short_side": 64, "scale": (1.0, 1.0), "crop": SIZE, "photometric": False}
    )
    model = make_model(config, parallel.AXIS)
    optimizer = make_optimizer(learning_rate, weight_decay=0.0)
    step = parallel.run_on_devices(
        steps.make_step(
            steps.make_loss(model, config, "discover"),
            optimizer,
            config,
            0.0,
            mask_size(config.model, SIZE),
        ),
        jax.local_devices()[:1],
    )
    keys = {"params": jax.random.key(0), "dropout": jax.random.key(1)}
    alone = make_model(config)
    nothing = jnp.zeros((1, 2, *SIZE, 3))
    variables = jax.jit(lambda: alone.init(keys, nothing, train=False))()
    state = parallel.replicate(
        create_state(variables, optimizer, 0, 0.0), jax.local_devices()[:1]
    )
    rng = np.random.default_rng(0)
    for _ in range(steps_taken):
        batch, _ = toy(rng, 4)
        if not flow:
            batch.flow_forward[:] = batch.flow_backward[:] = np.nan
        state, _ = step(state, parallel.split(batch, 1))
    batch, truth = toy(np.random.default_rng(99), 8)
    logits = alone.apply(
        parallel.unreplicate(state).variables,
        eval_sample(batch.frames[:, 0]),
        method="segment",
    )
    found = np.asarray(logits).argmax(-1)
    small = truth[:, 2::4, 2::4]
    scores = [
        (found[n] == c)[small[n]].sum() / ((found[n] == c) | small[n]).sum()
        for c in range(2)
        for n in range(8)
    ]
    return max(np.mean(scores[:8]), np.mean(scores[8:]))


@pytest.mark.slow
def test_a_moving_square_is_learned_to_j_above_095(tmp_path):
    assert learned_jaccard(tiny_config(tmp_path, tmp_path), 150, 3e-3) > 0.95


@pytest.mark.slow
def test_amd_learns_the_square_without_any_flow():
    config = amd.get_config("runlocal")
    config.model.motion_width = 16
    config.loss.scales = 2  # of a frame of 64 px nothing but blotches is left below
    assert learned_jaccard(config, 100, 3e-3, flow=False) > 0.9
