"""Whole training steps through the project's own loss, optimiser and averages.

Up to four forwards and three updates on one batch, in float64 (limits 1e-8 for losses,
1e-6 for norms and maps) and in float32 (ten times the stored rounding floor).

Adam's first step is the sign of the gradient times the rate, so that rounding of a
gradient near 0 moves a weight by twice the rate. In float32 single weights are
therefore not compared after an update, only their norms; and for losses from the second
forward on, where the floor is one number drawn from an amplified rounding error, the
largest floor of the file's losses stands for it.
"""

import dataclasses
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch_names

from imas_jax import geometry
from imas_jax.conventions import Sample
from imas_jax.models import imas
from imas_jax.training import state as states
from imas_jax.training import steps

pytestmark = pytest.mark.parity

LOSSES = {
    "loss": "loss",
    "loss_warp_seg": "motion",
    "loss_entropy": "entropy",
    "loss_pl": "appearance",
}


@dataclasses.dataclass(frozen=True)
class Item:
    """What distinguishes the files of steps."""

    stage: str
    updates: int = 3
    train: bool = True
    learning_rate: float = 1e-4
    channel: int = 1
    ema: float = 0.0


ITEMS = {
    "stage1_step": Item("discover"),
    "stage1_step_evalbn": Item("discover", updates=1, train=False),
    "stage2_pl_step": Item("refine", learning_rate=1e-5, ema=0.999),
}


def make_sample(authors, item, file, dtype):
    """Rebuild the batch: frames, flow and targets at mask resolution."""
    b, (h, w) = int(file["batch"]), map(int, file["crop"])
    last = torch_names.to_channels_last

    def resized(maps):
        size = tuple(map(int, file["mask_size"]))
        return geometry.resize(jnp.asarray(last(maps), dtype), size)

    shape = (b, 2, 3, h, w)
    frames = authors.draw("smooth", "stage1.img", shape)
    frames = frames + authors.draw("normal", "stage1.img_noise", shape, scale=0.3)
    flows = [
        resized(authors.draw("flow_field", f"stage1.{d}", (b, 1, 2, h, w))[:, 0])
        for d in ("fw", "bw")
    ]
    target = None
    if item.stage == "refine":
        wave = authors.draw("smooth", "stage2.pl", (b, 2, h, w), scale=2, dtype=float)
        soft = (0.5 + 0.5 * np.tanh(wave)).astype(np.float32)
        target = resized(soft[:, :, None])[..., 0]
        target = (target > 0.35).astype(dtype)
    return Sample(jnp.asarray(last(frames), dtype), *flows, target)


def step_config(file):
    config = torch_names.network_config(channels=int(file["logits"].shape[1]))
    config.loss.entropy = "rcf"
    return config


def run(authors, name, file, dtype):
    """Train as an item says; return all quantities by name, in torch's layout."""
    item, config = ITEMS[name], step_config(file)
    model = imas.make_model(config)
    variables = torch_names.variables_of(authors, config, dtype)
    sample = make_sample(authors, item, file, dtype)
    found = first_forward(model, variables, sample, item.train)
    loss = steps.make_loss(model, config, item.stage, (item.channel,), item.train)
    slope = jax.jit(jax.grad(loss, has_aux=True))
    decay = config[item.stage].weight_decay
    optimizer = states.make_optimizer(item.learning_rate, decay)
    update = jax.jit(
        lambda state, grads, stats: steps.apply_gradients(
            state, grads, stats, optimizer, item.ema
        )
    )
    state = states.create_state(variables, optimizer, 0, item.ema)
    for i in range(1, item.updates + 2):
        grads, (metrics, stats) = slope(
            state.params, state.batch_stats, sample, jax.random.key(0)
        )
        found |= losses_of(metrics, i)
        if i == 1:
            keep(found, "grad", "", torch_names.by_name({"params": grads}))
        state = update(state, grads, stats)
        keep(found, "", f".step{i}", torch_names.by_name(state.variables), variables)
    if item.ema:
        ours = torch_names.by_name(state.ema, averaged=True)
        keep(found, "ema", ".after_last_forward", ours, variables)
    return found


def keep(found, kind, when, tensors, start=None):
    """Store tensors under the kinds of names the files have."""
    before = {}
    if start is not None:
        before = torch_names.by_name(start, averaged=kind == "ema")
    for name, value in tensors.items():
        if kind:
            found[f"{kind}{when}/{name}"] = value
        else:
            found[f"param{when}/{name}"] = found[f"bn{when}/{name}"] = value
        if before:
            delta = "ema_delta" if kind == "ema" else "delta"
            found[f"{delta}{when}/{name}"] = value - before[name]


def first_forward(model, variables, sample, train):
    """Return logits, residual maps and statistics of features before any update."""
    out, extra = jax.jit(
        lambda tree, x: model.apply(
            tree,
            x,
            train=train,
            mutable=["batch_stats", "intermediates"],
            capture_intermediates=lambda module, _: module.name == "backbone",
        )
    )(variables, sample.frames)
    first = torch_names.to_channels_first
    maps = np.concatenate([out.residual_forward, out.residual_backward], axis=-1)
    found = {
        "logits": first(out.logits.reshape(-1, *out.logits.shape[2:])),
        "residual": first(maps),
    }
    (stages,) = extra["intermediates"]["backbone"]["__call__"]
    for i, stage in enumerate(stages, start=1):
        stage = np.asarray(stage, np.float64)
        found[f"feat{i}_chmean"] = stage.mean(axis=(0, 1, 2))
        found[f"feat{i}_rms"] = np.sqrt(np.square(stage).mean())
    return found


def losses_of(metrics, step):
    return {
        f"{theirs}.step{step}": metrics.get(ours) for theirs, ours in LOSSES.items()
    }


def quantity(key, found, file):
    """Return ours for a key of the file: a number, a tensor, or a vector of norms."""
    if key in found:
        return found[key]
    kind, _, when = key.partition("_norm")
    names = (
        file[f"{'ema' if kind.startswith('ema') else kind}_names"]
        if (kind in ("bn", "ema", "ema_delta"))
        else file["param_names"]
    )
    return torch_names.norms(found[f"{kind}{when}/{name}"] for name in names)


def floor_of(key, file, double):
    """Return the rounding floor of a key, or None where float32 says nothing."""
    floor = float(np.max(file[f"relerr_f32_f64/{key}"]))
    if double:
        return floor
    if key.startswith("delta."):
        return None
    if re.fullmatch(r"loss\w*\.step[2-9]", key):
        kind = re.compile(r"relerr_f32_f64/loss\w*\.step\d")
        return max(float(file[k]) for k in file if kind.fullmatch(k))
    return floor


@pytest.mark.slow
@pytest.mark.parametrize("precision", ["float64", "float32"])
@pytest.mark.parametrize("name", ITEMS)
def test_steps_agree(name, precision, authors, record):
    file = authors.load(name)
    double = precision == "float64"
    with jax.enable_x64(double):
        found = run(authors, name, file, np.float64 if double else np.float32)
    keys = [key for key in file if f"relerr_f32_f64/{key}" in file]
    assert len(keys) > 30
    compare(name, keys, found, precision, file, record)


def test_the_first_forward_agrees_in_float32(authors, record):
    file = authors.load("stage1_step")
    item, config = ITEMS["stage1_step"], step_config(file)
    model = imas.make_model(config)
    variables = torch_names.variables_of(authors, config)
    sample = make_sample(authors, item, file, np.float32)
    found = first_forward(model, variables, sample, item.train)
    loss = jax.jit(steps.make_loss(model, config, item.stage, (), item.train))
    _, (metrics, _) = loss(
        variables["params"], variables["batch_stats"], sample, jax.random.key(0)
    )
    found |= losses_of(metrics, 1)
    keys = [key for key, value in found.items() if value is not None]
    compare("stage1_step", keys, found, "float32", file, record)


def compare(name, keys, found, precision, file, record):
    """Record the quantities of a file by their keys."""
    double = precision == "float64"
    for key in keys:
        floor = floor_of(key, file, double)
        if floor is None:
            continue
        exact = f"{key}_f64" in file
        theirs = file[f"{key}_f64"] if exact else file[key]
        ours = quantity(key, found, file)
        limit = torch_names.limit(floor)
        if exact and double:
            limit = 1e-8 if key.startswith("loss") else 1e-6
        gap = torch_names.error(ours, theirs)
        record(name, f"{key}, {precision}", gap, floor, limit)
        if key == "grad_norm":
            floor = float(np.max(file["relerr_f32_f64/grad_norm_each"]))
            gap = np.max(np.abs(ours / theirs - 1))
            limit = 1e-6 if double else torch_names.limit(floor)
            record(name, f"{key} of each tensor, {precision}", gap, floor, limit)


@pytest.mark.usefixtures("float64")
def test_learning_rates_are_the_authors(authors, record):
    file = authors.load("stage1_step")
    keys = [key for key in file if re.match(r"lr_stage\d", key)]
    assert keys
    for key in keys:
        stage, epochs, base = re.fullmatch(
            r"lr_stage(\d)_E(\d+)_base(.+)", key
        ).groups()
        steps_of_epoch = 216
        schedule = states.polynomial_schedule(
            float(base), 1e-6, 0.9, int(epochs) * steps_of_epoch, steps_of_epoch
        )
        when = file["lr_epochs" if stage == "1" else f"lr_epochs_stage{stage}"]
        for place in (0, steps_of_epoch - 1):
            ours = [schedule(int(epoch) * steps_of_epoch + place) for epoch in when]
            gap = np.max(np.abs(np.array(ours) / file[key] - 1))
            record("stage1_step", f"{key}, step {place} of an epoch", gap, None, 1e-8)
