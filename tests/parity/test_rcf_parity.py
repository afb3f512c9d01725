"""What RCF adds after IMAS, as far as its authors' code lets one run it.

Stage 1 with the entropy, stage 2.1 from the stored CRF outputs, and the offline script
of stage 2.2: cuts, their refinement, both CRFs and their product. A teacher in training
mode (theirs by accident) changes its own statistics; ours does not, so of that file the
student's side is compared. PNGs between their scripts have no counterpart here.
"""

import dataclasses
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import test_steps_parity as whole
import torch_names

from imas_jax import geometry, losses
from imas_jax.appearance import alignment, crf, cuts, semantic
from imas_jax.conventions import Sample
from imas_jax.models import imas
from imas_jax.training import state as states
from imas_jax.training import steps

pytestmark = pytest.mark.parity
EXACT, THROUGH_ADAM = 1e-10, 1e-7


@pytest.fixture(scope="module")
def later(authors):
    return authors.load("rcf_later")


@pytest.fixture(scope="module")
def soft(later):
    """Soft masks (t, h, w, c) and features (t, gh, gw, d) of three frames."""
    (gh, gw), masks = later["s22/grid"], np.moveaxis(later["s22/masks"], 1, -1)
    features = later["s22/feats"][:, 1:].reshape(len(masks), gh, gw, -1)
    return masks.astype(np.float64), features.astype(np.float64)


def test_cuts_and_the_channel_they_choose(later, soft, record):
    judged = [
        alignment.judge_by_cut(alignment.CandidateMasks(m, m > 0.5), f, 0.2)
        for m, f in zip(*soft, strict=True)
    ]
    costs = cuts.WORST * (1.0 - np.array([one.values for one in judged]))
    theirs = later["s22/ncut_f64"]
    floor = float(later["relerr_f32_f64/s22/ncut"])
    gap = torch_names.error(costs, theirs)
    record("rcf_later", "s22/ncut, float64", gap, floor, EXACT)
    gap = torch_names.error(-costs.mean(axis=0), later["s22/frame_maa_f64"])
    record("rcf_later", "s22/frame_maa, float64", gap, None, EXACT)
    choice = alignment.choose("cut", [(i,) for i in range(4)], {"all": judged})
    wrong = int(choice.channels != (int(later["s22/best_channel"]),))
    record("rcf_later", "s22/best_channel: wrong", wrong, None, 0)


@pytest.mark.parametrize("count", [1, 2, 10])
def test_a_refined_cut(count, later, soft, record):
    channel = int(later["s22/best_channel"])
    masks, features = soft
    grids, size = [], masks.shape[1:3]
    for mask, seen in zip(masks[..., channel], features, strict=True):
        small = cuts.nearest(mask, seen.shape[:2])
        grids.append(cuts.refine(cuts.affinity(seen, 0.2), small, count))
    key = f"s22/refined_grid_{count}steps"
    gap = torch_names.error(np.stack(grids), later[f"{key}_f64"])
    floor = float(later[f"relerr_f32_f64/{key}"])
    record("rcf_later", f"{key}, float64", gap, floor, THROUGH_ADAM)
    # As targets get it: resized in float32, on the host.
    whole_size = [
        semantic.resize(grid.astype(np.float32)[..., None], size)[..., 0]
        for grid in grids
    ]
    key = f"s22/refined_{count}steps"
    gap = torch_names.error(np.stack(whole_size), later[f"{key}_f64"])
    record("rcf_later", key, gap, None, 1e-5)


def test_pseudo_labels_are_what_both_crfs_have(later, record):
    images, channel = later["s22/image_u8"], int(later["s22/best_channel"])
    shape = images.shape[:3]
    masks = later["s22/masks"][:, channel]
    cut = cuts.CutConstraint(lambda frame: frame, "stored", 0.2)
    preset = dataclasses.replace(crf.PRESETS["authors_target"], short_side=0)
    second = dataclasses.replace(preset, stretch=cut.stretch)
    found = {
        "crf_single": [
            crf.refine(*p, preset).mask for p in zip(images, masks, strict=True)
        ],
        "crf_after_ncut": [
            crf.refine(*pair, second).mask
            for pair in zip(images, later["s22/refined_10steps"], strict=True)
        ],
    }
    both = list(zip(*found.values(), strict=True))
    found["crf_product"] = [cut.agree(*pair).mask for pair in both]
    for name, ours in found.items():
        want = np.unpackbits(later[f"s22/{name}_bits"])[: np.prod(shape)]
        different = np.count_nonzero(np.stack(ours) != want.reshape(shape))
        record("rcf_later", f"s22/{name}: differing pixels", different, None, 0)
    apart = [np.count_nonzero(one != other) for one, other in both]
    gap = np.abs(np.array(apart) - later["s22/umi"]).max()
    record("rcf_later", "s22/umi, pixels", gap, None, 0)


@pytest.mark.usefixtures("float64")
def test_the_loss_of_pseudo_labels(later, record):
    channel = int(later["s22/best_channel"])
    logits = jnp.asarray(np.moveaxis(later["s22/pred_logits"], 2, -1), float)
    target = (later["s22/pl_resized_f64"] > 0.35).astype(float)

    def loss(logits):
        mask = jax.nn.softmax(logits, axis=-1)[..., channel]
        return losses.appearance_loss(mask, jnp.asarray(target), 2.0, 1.0)

    value, slope = jax.value_and_grad(loss)(logits)
    gap = torch_names.error(value, later["s22/loss_pl_f64"])
    record("rcf_later", "s22/loss_pl, float64", gap, None, EXACT)
    gap = torch_names.error(
        np.moveaxis(np.asarray(slope), -1, 2), later["s22/loss_pl.grad_logits_f64"]
    )
    record("rcf_later", "s22/loss_pl.grad_logits, float64", gap, None, EXACT)
    bits = np.unpackbits(later["s22/crf_product_bits"])[: 3 * 62 * 94]
    product = bits.reshape(3, 62, 94)[:2, ..., None].astype(float)
    resized = geometry.resize(jnp.asarray(product), target.shape[2:])[..., 0]
    gap = torch_names.error(resized, later["s22/pl_resized_f64"][0])
    record("rcf_later", "s22/pl_resized, float64", gap, None, EXACT)


def sample_of(authors, prefix):
    """Rebuild a batch of two pairs of 64x80 crops, masks of 16x20."""
    last, size = torch_names.to_channels_last, (16, 20)
    shape = (2, 2, 3, 64, 80)
    frames = authors.draw("smooth", f"{prefix}.img", shape)
    frames = frames + authors.draw("normal", f"{prefix}.img_noise", shape, scale=0.05)
    flows = [
        geometry.resize(
            jnp.asarray(
                last(authors.draw("flow_field", f"{prefix}.{d}", (2, 1, 2, 64, 80)))[
                    :, 0
                ],
                float,
            ),
            size,
        )
        for d in ("fw", "bw")
    ]
    return Sample(jnp.asarray(last(frames), float), *flows, None)


def target_of(later, item, step):
    """Return a step's stored CRF output as training sees it."""
    count = 4 * 64 * 80
    bits = np.unpackbits(later[f"{item}/crf_out_bits.step{step}"])[:count]
    maps = jnp.asarray(bits.reshape(4, 64, 80, 1), float)
    return geometry.resize(maps, (16, 20))[..., 0].reshape(2, 2, 16, 20)


@pytest.mark.slow
@pytest.mark.usefixtures("float64")
def test_stage_1_with_entropy(authors, later, record):
    config = torch_names.network_config()
    config.loss.entropy = "rcf"
    found = step_of(authors, config, "discover", sample_of(authors, "rcf1"))
    _, grads, metrics, _ = found
    keep_losses(record, later, "s1", metrics, "")
    keep_norms(record, later, "s1/grad_norm", grads)


@pytest.mark.slow
@pytest.mark.usefixtures("float64")
def test_stage_2_1_from_the_stored_masks(authors, later, record):
    """Three forwards and two updates; the teacher as the comment in the code has it."""
    config = torch_names.network_config()
    config.refine.appearance_weight, config.refine.motion_weight = 10.0, 1.0
    item, plain = "s21_evalteacher", "s21"
    batch = sample_of(authors, "rcf21")
    teacher = teacher_variables(authors, config)
    model = imas.make_model(config)
    flat = batch.frames.reshape(-1, *batch.frames.shape[2:])
    logits = model.apply(teacher, flat, method="segment")
    theirs = later[f"{item}/teacher_logits_f64"]
    gap = torch_names.error(torch_names.to_channels_first(logits), theirs)
    record("rcf_later", f"{item}/teacher_logits, float64", gap, None, EXACT)
    mask = jax.nn.softmax(logits)[..., 1:2]
    gap = torch_names.error(
        geometry.resize(mask, (64, 80))[..., 0], later[f"{item}/crf_in_mask_f64"]
    )
    record("rcf_later", f"{item}/crf_in_mask, float64", gap, None, EXACT)
    start = torch_names.variables_of(authors, config, np.float64)
    optimizer = states.make_optimizer(1e-5, config.refine.weight_decay)
    state = states.create_state(start, optimizer, 0, 0.99)
    state = dataclasses.replace(state, ema=teacher)
    slope = gradient(model, config, "refine")
    for step in (1, 2, 3):
        seen = dataclasses.replace(batch, target=target_of(later, item, step))
        grads, (metrics, stats) = slope(state.params, state.batch_stats, seen)
        keep_losses(record, later, item, metrics, f".step{step}")
        if step == 1:
            keep_norms(record, later, f"{item}/grad_norm", grads)
            other = dataclasses.replace(batch, target=target_of(later, plain, 1))
            _, (told, _) = slope(state.params, state.batch_stats, other)
            keep_losses(record, later, plain, told, ".step1")
        state = states_after(state, grads, stats, optimizer)
        if step in (1, 3):
            ours = torch_names.by_name(state.ema, averaged=True)
            order = later[f"{item}/ema_names"]
            norms = torch_names.norms(ours[name] for name in order)
            key = f"{item}/ema_norm.step{step}"
            gap = torch_names.error(norms, later[f"{key}_f64"])
            record("rcf_later", f"{key}, float64", gap, None, THROUGH_ADAM)


def teacher_variables(authors, config):
    """Fill a network with the weights that are drawn for the teacher alone."""
    named = dataclasses.replace(authors, recipe=Renamed(authors.recipe))
    return torch_names.variables_of(named, config, np.float64)


class Renamed:
    """The folder's generator, with every name behind "ema."."""

    def __init__(self, recipe):
        self.recipe = recipe

    def param(self, name, shape, seed):
        return self.recipe.param(f"ema.{self.recipe.strip(name)}", shape, seed)


def gradient(model, config, stage):
    loss = steps.make_loss(model, config, stage, (1,) if stage == "refine" else ())
    whole_slope = jax.jit(jax.grad(loss, has_aux=True))
    return lambda params, stats, seen: whole_slope(
        params, stats, seen, jax.random.key(0)
    )


def step_of(authors, config, stage, batch):
    model = imas.make_model(config)
    start = torch_names.variables_of(authors, config, np.float64)
    grads, (metrics, stats) = gradient(model, config, stage)(
        start["params"], start["batch_stats"], batch
    )
    return start, grads, metrics, stats


def states_after(state, grads, stats, optimizer):
    return jax.jit(
        lambda state, grads, stats: steps.apply_gradients(
            state, grads, stats, optimizer, 0.99
        )
    )(state, grads, stats)


def keep_losses(record, later, item, metrics, when):
    names = {**whole.LOSSES, "loss_crf": "appearance"}
    for theirs, ours in names.items():
        key = f"{item}/{theirs}{when}_f64"
        if key in later and ours in metrics:
            gap = torch_names.error(metrics[ours], later[key])
            record("rcf_later", f"{key}", gap, None, 1e-8)


def keep_norms(record, later, key, grads):
    ours = torch_names.by_name({"params": grads})
    order = later[f"{re.sub(r'/.*', '', key)}/param_names"]
    norms = torch_names.norms(ours[name] for name in order)
    gap = torch_names.error(norms, later[f"{key}_f64"])
    record("rcf_later", f"{key}, float64", gap, None, 1e-6)
