"""One training step of each stage: sample -> losses -> update (paper Sec. 3.2, 3.3).

Per-device maths only; `training/parallel.py` runs it on devices.
"""

import dataclasses
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float
from ml_collections import ConfigDict

from imas_jax import composition, geometry, losses
from imas_jax.conventions import Batch, Prediction, Sample, Tree
from imas_jax.data.augment import augment, denormalize
from imas_jax.models.amd import AMD, JointPrediction
from imas_jax.models.imas import IMAS
from imas_jax.training import parallel
from imas_jax.training.state import AUGMENT, DROPOUT, TrainState

Metrics = dict[str, Array]
LossFunction = Callable[[Tree, Tree, Sample, Any], tuple[Array, tuple[Metrics, Tree]]]


def make_loss(
    model: IMAS | AMD,
    config: ConfigDict,
    stage: str,
    channels: tuple[int, ...] = (),
    train: bool = True,
) -> LossFunction:
    """Assemble the loss of a stage.

    Args:
        model: The network.
        config: The whole config; `model`, `loss` and `refine` are read.
        stage: "discover" (equation 6; AMD's loss) or "refine" (equation 9).
        channels: The channels that together are pulled to `sample.target`: in
            "refine" the object's (one in the paper), in "discover" the guided one.
        train: Whether batch normalisation uses batch statistics.

    Returns:
        `loss(params, batch_stats, sample, dropout_key)` giving the loss and
        `(metrics, new batch_stats)`.
    """
    weight = config[stage].motion_weight

    def loss(
        params: Tree, batch_stats: Tree, sample: Sample, key: Any
    ) -> tuple[Array, tuple[Metrics, Tree]]:
        variables = {"params": params, "batch_stats": batch_stats}
        seen, updates = model.apply(
            variables,
            sample.frames,
            train=train,
            mutable=["batch_stats"],
            rngs={"dropout": key},
            # Without the motion loss nothing looks at two frames together.
            method=None if weight > 0 else "pair_logits",
        )
        metrics: Metrics = {}
        if weight > 0:
            masks = jax.nn.softmax(seen.logits, axis=-1)
            explain: Any = _photometric if isinstance(model, AMD) else _motion
            total, metrics = explain(model, config, variables, sample, masks, seen)
            total = weight * total
        else:
            masks, total = jax.nn.softmax(seen, axis=-1), jnp.zeros(())
        if stage == "discover" and config.loss.entropy != "off":
            kinds = {"rcf": losses.entropy_rcf, "intended": losses.entropy}
            metrics["entropy"] = kinds[config.loss.entropy](masks)
            total = total + config.loss.entropy_weight * metrics["entropy"]
        if stage == "discover" and config.loss.compactness > 0:
            metrics["compactness"] = losses.compactness(masks[..., 0])
            total = total + config.loss.compactness * metrics["compactness"]
        if stage == "discover" and config.discover.evidence_weight > 0:
            metrics["evidence"] = losses.appearance_loss(
                masks[..., list(channels)].sum(axis=-1), sample.target
            )
            total = total + config.discover.evidence_weight * metrics["evidence"]
        if stage == "refine":
            metrics["appearance"] = losses.appearance_loss(
                masks[..., list(channels)].sum(axis=-1),
                sample.target,
                config.refine.positive_weight,
                config.refine.negative_weight,
            )
            total = total + config.refine.appearance_weight * metrics["appearance"]
        metrics["loss"] = total
        return total, (metrics, updates["batch_stats"])

    return loss


def _motion(
    model: IMAS,
    config: ConfigDict,
    variables: Tree,
    sample: Sample,
    masks: Float[Array, "b 2 hm wm c"],
    prediction: Prediction,
) -> tuple[Array, Metrics]:
    """Return the motion loss of one or both directions (equation 6), pixels."""
    directions = [(0, sample.flow_forward, prediction.residual_forward)]
    if config.loss.symmetric:
        directions.append((1, sample.flow_backward, prediction.residual_backward))
    parts = []
    for frame, flow, residual in directions:
        flow = composition.clamp_flow(flow, config.model.flow_clamp)
        reconstruction = model.apply(
            variables, flow, masks[:, frame], residual, method="reconstruct"
        )
        parts.append(losses.motion_loss(flow, reconstruction, config.loss.kind))
    names = ("motion_forward", "motion_backward")
    total = jnp.sum(jnp.stack(parts))
    return total, {**dict(zip(names, parts, strict=False)), "motion": total}


def _photometric(
    model: AMD,
    config: ConfigDict,
    variables: Tree,
    sample: Sample,
    masks: Float[Array, "b 2 hm wm c"],
    prediction: JointPrediction,
) -> tuple[Array, Metrics]:
    """Return AMD's loss: each frame against the other one, warped to it.

    The flow in `sample` is not read.
    """
    images = denormalize(sample.frames)
    size = (images.shape[2], images.shape[3])
    motions = (prediction.motion_forward, prediction.motion_backward)
    parts = []
    for frame in (0, 1) if config.loss.symmetric else (0,):
        flow = model.apply(variables, masks[:, frame], motions[frame], method="flow")
        flow = geometry.resize(flow, size)
        here, there = images[:, frame], images[:, 1 - frame]
        for scale in range(config.loss.scales):
            if scale:
                here, there, flow = map(geometry.halve, (here, there, flow))
                flow = flow / 2.0
            warped = jax.vmap(geometry.warp)(there, flow)
            parts.append(losses.photometric_loss(here, warped, config.loss.ssim))
    total = jnp.sum(jnp.stack(parts))
    return total, {"photometric": total}


def make_step(
    loss: LossFunction,
    optimizer: optax.GradientTransformation,
    config: ConfigDict,
    ema: float,
    mask_size: tuple[int, int],
) -> Callable[[TrainState, Batch], tuple[TrainState, Metrics]]:
    """Build the per-device `step(state, batch) -> (state, metrics)`.

    Args:
        loss: From `make_loss`.
        optimizer: From `make_optimizer`.
        config: `augment` is read.
        ema: Decay of averaged variables, 0 for none.
        mask_size: (h, w) of the network's masks at the training crop.
    """

    def step(state: TrainState, batch: Batch) -> tuple[TrainState, Metrics]:
        root = jax.random.key(state.seed)
        augment_key, dropout_key = (
            jax.random.fold_in(jax.random.fold_in(root, stream), state.step)
            for stream in (AUGMENT, DROPOUT)
        )
        keys = parallel.example_keys(augment_key, batch.pair.shape[0])
        sample = augment(batch, keys, config.augment, mask_size, train=True)
        gradient = jax.grad(loss, has_aux=True)
        grads, (metrics, batch_stats) = gradient(
            state.params, state.batch_stats, sample, jax.random.fold_in(dropout_key, 0)
        )
        grads, metrics = parallel.average((grads, metrics))
        moved = apply_gradients(state, grads, batch_stats, optimizer, ema)
        metrics["gradient_norm"] = optax.tree.norm(grads)
        metrics["update_norm"] = optax.tree.norm(
            optax.tree.sub(moved.params, state.params)
        )
        return moved, metrics

    return step


def apply_gradients(
    state: TrainState,
    grads: Tree,
    batch_stats: Tree,
    optimizer: optax.GradientTransformation,
    ema: float,
) -> TrainState:
    """Update parameters; average them as the authors do, before the update.

    Args:
        state: Before the step.
        grads: Averaged over devices.
        batch_stats: Statistics after this step's forward pass.
        optimizer: From `make_optimizer`.
        ema: Decay of the average, 0 for none.
    """
    averaged = state.ema
    if ema > 0:
        latest = {"params": state.params, "batch_stats": batch_stats}
        averaged = jax.tree.map(
            lambda old, new: ema * old + (1.0 - ema) * new, state.ema, latest
        )
    updates, opt_state = optimizer.update(grads, state.opt_state, state.params)
    return dataclasses.replace(
        state,
        step=state.step + 1,
        params=optax.apply_updates(state.params, updates),
        batch_stats=batch_stats,
        opt_state=opt_state,
        ema=averaged,
        teacher=None if state.teacher is None else state.ema,
    )
