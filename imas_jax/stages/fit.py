"""Trains one stage to its end: data, step, schedule and loop put together."""

import dataclasses
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import jax
import numpy as np
from absl import logging
from jaxtyping import UInt8
from ml_collections import ConfigDict

from imas_jax.conventions import Tree
from imas_jax.data import augment, pipeline
from imas_jax.data import training_set as training_sets
from imas_jax.data.clips import Clip
from imas_jax.models.imas import mask_size
from imas_jax.runs.run import Run
from imas_jax.stages import frozen, inputs, network, shares
from imas_jax.stages.predictor import inference_size, sample
from imas_jax.training import held, loop, parallel, steps
from imas_jax.training import state as states
from imas_jax.training.online import Look, OnlineTargets, Refine
from imas_jax.training.watching import Watcher


@dataclasses.dataclass(frozen=True)
class Wanted:
    """Masks that training is pulled to besides explaining motion.

    Attributes:
        channels: The channels that together should be them.
        masks: 0..255 for [0, 1], one array a training clip, in the clips' order; None
            where `refine` makes them.
        refine: Makes them while training, of a batch's frames and the averaged
            network's masks (training/online.py).
    """

    channels: tuple[int, ...]
    masks: Sequence[UInt8[np.ndarray, "_ _ _"]] | None = None
    refine: Refine | None = None


def fit(
    run: Run,
    stage: str,
    variables: Tree,
    watcher: Watcher,
    wanted: Wanted | None = None,
) -> states.TrainState:
    """Train one stage to its end, from its newest checkpoint if it has one.

    Args:
        run: The run.
        stage: "discover" or "refine".
        variables: Where training starts without a checkpoint.
        watcher: Looks on.
        wanted: Stage-2 targets, or the motion evidence that guides stage 1.
    """
    training_set = training_sets.find(
        run.config, inputs.training_clips(run), inputs.flow(run)
    )
    fitting = with_whole_frames if frozen.parts(run.config) else with_fitting_crop
    config = fitting(run.config, training_set.size)
    rate = config[stage]
    # Shards hold neighbours only.
    if rate.motion_weight == 0 and config.data.source != "tfrecord":
        training_set = training_sets.apart(training_set)
    parallel.check_batch(rate.batch_size)
    model = network.build_model(config, parallel.AXIS)
    optimizer = network.stage_optimizer(config, stage)
    step: Callable[[Any, Any], Any] = steps.make_step(
        steps.make_loss(model, config, stage, wanted.channels if wanted else ()),
        optimizer,
        config,
        rate.ema,
        mask_size(config.model, tuple(config.augment.crop)),
    )
    online = None
    if wanted is not None and wanted.refine is not None:
        online = OnlineTargets(_object(config, wanted.channels), wanted.refine)
    here = parallel.processes_here()
    source = pipeline.make_source(
        config,
        training_set,
        "discover" if stage == "discover" else "refine",
        run.workdir / "prepare",
        wanted.masks if wanted else None,
        parallel.process(),
        here,
        frozen_features(run, variables, training_set.clips),
    )
    batches: Callable[[int], Iterator[Any]] = source.batches
    if config.data.source == "device":
        assert isinstance(source, pipeline.MemorySource)
        step = held.drawing(step)
        batches = held.HeldSource(source, rate.steps, here).batches
    return loop.train(
        stage,
        step,
        states.create_state(
            variables,
            optimizer,
            config.seed,
            rate.ema,
            online is not None,
            frozen.parts(config),
        ),
        batches,
        run.workdir / stage,
        loop.Schedule(
            rate.steps,
            rate.checkpoint_every,
            rate.log_every,
            network.stage_rate(config, stage),
        ),
        watcher,
        online,
    )


def _object(config: ConfigDict, channels: tuple[int, ...]) -> Look:
    """Build what finds the object's masks in frame pairs, as stage predict would."""
    model, short_side = network.build_model(config), config.predict.short_side

    def look(variables: Tree, frames: jax.Array) -> jax.Array:
        flat = frames.reshape(-1, *frames.shape[2:])
        seen = sample(flat, short_side)
        logits: Any = model.apply(variables, seen, method="segment")
        masks = jax.nn.softmax(logits)[..., list(channels)].sum(axis=-1)
        return masks.reshape(*frames.shape[:2], *masks.shape[1:])

    return look


def frozen_features(
    run: Run, variables: Tree, clips: Sequence[Clip]
) -> Sequence[frozen.ClipFeatures] | None:
    """Return what the backbone sees in every frame; None where it is trained."""
    model = network.build_model(run.config)
    store = frozen.open_store(run.config, run.workdir, model, variables)
    return None if store is None else store.keep(clips, shares.every())


def with_whole_frames(config: ConfigDict, size: tuple[int, int]) -> ConfigDict:
    """Return the config with frames of `size` whole and as they are; say what is off.

    A frozen backbone saw them so.
    """
    seen, wanted = inference_size(size, config.predict.short_side), config.augment
    off = {
        "random crops": tuple(wanted.crop) != seen,
        "random scales": len(set(wanted.scale)) > 1,
        "flips": wanted.flip > 0,
        "colours": wanted.photometric,
    }
    logging.info(
        "the backbone is frozen: its features of whole frames of %dx%d are computed "
        "once, and augmentation that makes new pixels is off (%s)",
        *seen[::-1],
        ", ".join(name for name, was_on in off.items() if was_on) or "none was on",
    )
    whole = config.copy_and_resolve_references().unlock()
    whole.augment.update(
        {
            **{"short_side": min(seen), "scale": (1.0, 1.0), "crop": seen},
            **{"flip": 0.0, "photometric": False},
        }
    )
    return whole.lock()


def with_fitting_crop(config: ConfigDict, size: tuple[int, int]) -> ConfigDict:
    """Return the config with a crop that frames of `size` can give, and say so.

    Raises:
        UserError: If the crop does not fit and `augment.fit_crop` is off.
    """
    if not config.augment.fit_crop:
        augment.check_crop(size, config.augment)
        return config
    crop = augment.fit_crop(size, config.augment)
    if crop == tuple(config.augment.crop):
        return config
    logging.info("training crop %s: %s does not fit", crop, config.augment.crop)
    fitted = config.copy_and_resolve_references().unlock()
    fitted.augment.crop = crop
    return fitted.lock()
