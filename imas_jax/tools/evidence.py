"""Trains the motion evidence as a tool: renders clips, learns their masks from flow.

Samples are rendered once and kept in `<workdir>/evidence/samples`; what is there is not
rendered again. Weights go to `<workdir>/evidence/evidence.npz`, those for RAFT's flow
to `evidence_raft.npz`; the packaged ones are copies. No annotation is read: masks are
known from how frames were rendered.
"""

import concurrent.futures
import json
import multiprocessing
import os
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import cv2
import jax
import jax.numpy as jnp
import numpy as np
import optax
from absl import logging
from jaxtyping import Array, Float
from ml_collections import ConfigDict

from imas_jax.conventions import Tree
from imas_jax.flow import estimators, evidence
from imas_jax.models.evidence_net import EvidenceNet
from imas_jax.progress import progress
from imas_jax.rendered import samples
from imas_jax.runs.records import digest
from imas_jax.runs.run import Output, Run

Metrics = dict[str, Array]
# Variables, the optimiser's state, averaged variables.
State = tuple[Tree, Any, Tree]


def work(run: Run) -> Output:
    """Render, train, and write the weights and the training curve."""
    config = run.config
    folder = run.folder("evidence")
    paths = render(config, folder / "samples")
    everything = [samples.read(path) for path in paths]
    held_out = everything[:: config.evidence.held_out]
    trained = [s for n, s in enumerate(everything) if n % config.evidence.held_out]
    members, curve = [], []
    for number, steps in enumerate(config.evidence.steps):
        variables, rows = train(config, steps, trained, held_out)
        members.append(variables)
        curve += [{"network": number, **row} for row in rows]
    path = folder / evidence.weights(config.flow.estimator).name
    evidence.write_weights(path, members)
    (folder / "curve.json").write_text(json.dumps(curve, indent=1) + "\n")
    return Output(evidence.digest(path), {"weights": str(path), "curve": curve})


def render(config: ConfigDict, folder: Path) -> list[Path]:
    """Render what is missing; return every sample's file."""
    # Samples of other settings, or of another renderer's pixels, are never taken up.
    named = digest([estimators.digest(config.flow), config.seed, samples.VERSION])[:12]
    folder = folder / named
    folder.mkdir(parents=True, exist_ok=True)
    paths = [folder / f"{number:05d}.npz" for number in range(config.evidence.clips)]
    missing = [n for n, path in enumerate(paths) if not path.is_file()]
    workers = config.evidence.workers or os.cpu_count() or 1
    # Spawned: a fork would share JAX's threads, which do not survive it.
    with concurrent.futures.ProcessPoolExecutor(
        workers, multiprocessing.get_context("spawn"), _start, (config.flow,)
    ) as pool:
        made = [
            pool.submit(_render_one, config.seed, number, paths[number])
            for number in missing
        ]
        done = concurrent.futures.as_completed(made)
        try:
            for future in progress(done, len(made), "evidence", "clip"):
                future.result()
        finally:  # whoever is stopped does not wait for clips that nobody began
            pool.shutdown(cancel_futures=True)
    return paths


def train(
    config: ConfigDict,
    steps: int,
    trained: Sequence[samples.Sample],
    held_out: Sequence[samples.Sample],
) -> tuple[Tree, list[dict[str, float]]]:
    """Train a network from random weights.

    Returns:
        Averaged variables, and every `log_every` steps the losses and the mean J on the
        rendered samples held out.
    """
    how = config.evidence
    net = EvidenceNet(tuple(how.widths), how.context)
    optimizer = make_optimizer(how, steps)
    blank = jnp.zeros((1, *how.crop, evidence.CHANNELS))
    variables = net.init(jax.random.key(config.seed), blank, False)
    state = start(variables, optimizer)
    step = make_step(net, optimizer, how)
    batches = _batches(trained, config)
    curve, since = [], []
    for number in progress(range(1, steps + 1), steps, "evidence", "step"):
        state, metrics = step(state, next(batches))
        since.append(metrics)
        if number % how.log_every == 0 or number == steps:
            means = {k: float(np.mean([m[k] for m in since])) for k in since[0]}
            means |= {"step": number, "jaccard": jaccard(state[2], held_out)}
            curve.append(means)
            logging.info(
                "evidence: step %d  cross-entropy %.4f  dice %.3f  J %.3f of %d "
                "rendered frames held out",
                number,
                means["cross_entropy"],
                means["dice"],
                means["jaccard"],
                len(held_out),
            )
            since = []
    return state[2], curve


def jaccard(variables: Tree, held_out: Sequence[samples.Sample]) -> float:
    """Return the mean J on samples, on the grid; two empty masks score 1."""
    network, scores = evidence.Network([variables]), []
    for sample in held_out:
        seen = evidence.Observation(
            sample.looks.astype(np.float32),
            sample.camera.astype(np.float32),
            sample.scales,
        )
        found, truth = network(seen) >= 0.5, sample.mask >= 128
        union = np.count_nonzero(found | truth)
        scores.append(np.count_nonzero(found & truth) / union if union else 1.0)
    return float(np.mean(scores)) if scores else float("nan")


def loss(
    logit: Float[Array, "b h w"], share: Float[Array, "b h w"], dice_weight: float
) -> tuple[Float[Array, ""], Metrics]:
    """Return cross-entropy, and Dice over the frames in which something moves."""
    entropy = optax.sigmoid_binary_cross_entropy(logit, share).mean()
    likely, truth = jax.nn.sigmoid(logit), (share >= 0.5).astype(logit.dtype)
    overlap = (likely * truth).sum((1, 2))
    total, size = likely.sum((1, 2)), truth.sum((1, 2))
    dice = 1 - (2 * overlap + 1) / (total + size + 1)
    moving = (size > 0).astype(logit.dtype)
    dice = (dice * moving).sum() / jnp.maximum(moving.sum(), 1)
    return entropy + dice_weight * dice, {"cross_entropy": entropy, "dice": dice}


def make_optimizer(how: ConfigDict, steps: int) -> optax.GradientTransformation:
    """Build the optimiser of `config.evidence` for so many steps."""
    warm_up = min(how.warm_up, steps - 1)  # a short trial run has fewer steps
    schedule = optax.warmup_cosine_decay_schedule(
        0.0, how.learning_rate, warm_up, steps, 1e-5
    )
    return optax.chain(
        optax.clip_by_global_norm(1.0),
        optax.adamw(schedule, weight_decay=how.weight_decay),
    )


def start(variables: Tree, optimizer: optax.GradientTransformation) -> State:
    """Return the state at step 0, in which no two arrays share memory."""
    averaged = jax.tree.map(lambda leaf: leaf.copy(), variables)
    return variables, optimizer.init(variables["params"]), averaged


def make_step(
    net: EvidenceNet, optimizer: optax.GradientTransformation, how: ConfigDict
) -> Callable[[State, Sequence[Array]], tuple[State, Metrics]]:
    """Return the jitted update: (state, batch) -> (state, metrics).

    The state's memory is given to the result.
    """

    def objective(params: Tree, stats: Tree, batch: Sequence[Array]) -> Any:
        *observed, share = batch
        logit, changed = net.apply(
            {"params": params, "batch_stats": stats},
            evidence.features(*observed),
            True,
            mutable=["batch_stats"],
        )
        total, metrics = loss(logit, share, how.dice_weight)
        return total, (changed["batch_stats"], metrics)

    def step(state: State, batch: Sequence[Array]) -> tuple[State, Metrics]:
        variables, memory, averaged = state
        gradient, (stats, metrics) = jax.grad(objective, has_aux=True)(
            variables["params"], variables["batch_stats"], batch
        )
        change, memory = optimizer.update(gradient, memory, variables["params"])
        params = optax.apply_updates(variables["params"], change)
        mean = jax.tree.map(
            lambda old, new: how.ema * old + (1 - how.ema) * new,
            averaged["params"],
            params,
        )
        return (
            {"params": params, "batch_stats": stats},
            memory,
            {"params": mean, "batch_stats": stats},
        ), metrics

    return jax.jit(step, donate_argnums=0)


def _batches(
    trained: Sequence[samples.Sample], config: ConfigDict
) -> Iterator[samples.Batch]:
    """Yield batches for ever: every sample once, in a new order, and so on."""
    rng = np.random.default_rng([config.seed, 1])
    size, left = config.evidence.batch_size, np.zeros(0, int)
    while True:
        while len(left) < size:
            left = np.concatenate([left, rng.permutation(len(trained))])
        chosen, left = left[:size], left[size:]
        yield samples.batch(
            [trained[n] for n in chosen], rng, tuple(config.evidence.crop)
        )


_estimator: estimators.Estimator  # of a rendering process: RAFT takes long to make


def _start(flow: ConfigDict) -> None:
    global _estimator
    cv2.setNumThreads(1)  # one process a core is enough
    _estimator = estimators.make_estimator(flow)


def _render_one(seed: int, number: int, path: Path) -> None:
    samples.write(path, samples.make(_estimator, seed, number))
