"""What training and prediction share: the network, its start, its checkpoints."""

import dataclasses
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax
from absl import logging
from ml_collections import ConfigDict

from imas_jax import target_files
from imas_jax.conventions import Tree
from imas_jax.data import crops, pipeline
from imas_jax.data import training_set as training_sets
from imas_jax.errors import UserError
from imas_jax.models import pretrained
from imas_jax.models.amd import AMD
from imas_jax.models.imas import IMAS, make_model, mask_size
from imas_jax.stages import inputs
from imas_jax.stages.run import Run
from imas_jax.training import loop, parallel, steps
from imas_jax.training import state as states
from imas_jax.training.checkpoints import Checkpoints
from imas_jax.training.watching import Watcher


@dataclasses.dataclass(frozen=True)
class Appearance:
    """What stage 2 learns from besides motion.

    Attributes:
        channels: The object's channels.
        targets: Folder of its targets.
    """

    channels: tuple[int, ...]
    targets: Path


def build_model(config: ConfigDict, axis_name: str | None = None) -> IMAS | AMD:
    """Build the config's network."""
    return make_model(config, axis_name)


def initial_variables(model: IMAS | AMD, config: ConfigDict) -> Tree:
    """Start a network: random, with backbone weights from a file where one is named."""
    # Parameters do not depend on the size of the frames they are made with.
    frames = jnp.zeros((1, 2, 64, 64, 3))
    keys = {"params": jax.random.key(config.seed), "dropout": jax.random.key(0)}
    variables = jax.jit(lambda: model.init(keys, frames, train=False))()
    if config.model.weights:
        variables = pretrained.load_into(
            variables, Path(config.model.weights), config.model.averaged
        )
    return variables


def stage_optimizer(config: ConfigDict, stage: str) -> optax.GradientTransformation:
    """Build the optimiser of a training stage."""
    return states.make_optimizer(stage_rate(config, stage), config[stage].weight_decay)


def stage_rate(config: ConfigDict, stage: str) -> optax.Schedule:
    """Build the learning rate of a training stage by update."""
    rate = config[stage]
    return states.polynomial_schedule(
        rate.learning_rate,
        rate.min_learning_rate,
        rate.power,
        rate.steps,
        rate.steps_per_decay,
    )


def template(config: ConfigDict, stage: str) -> states.TrainState:
    """Return shapes and types of a stage's state, without computing anything."""
    model = build_model(config)
    optimizer = stage_optimizer(config, stage)

    def start() -> states.TrainState:
        frames = jnp.zeros((1, 2, 64, 64, 3))
        keys = {"params": jax.random.key(0), "dropout": jax.random.key(0)}
        variables = model.init(keys, frames, train=False)
        return states.create_state(variables, optimizer, 0, config[stage].ema)

    return jax.eval_shape(start)


def final_state(config: ConfigDict, folder: Path, stage: str) -> states.TrainState:
    """Read the newest sound checkpoint of a training stage.

    Raises:
        UserError: If there is none, or it is another network's.
    """
    checkpoints = Checkpoints(folder / "checkpoints")
    try:
        state = checkpoints.restore(template(config, stage))
    finally:
        checkpoints.close()
    if state is None:
        raise UserError(
            f"no checkpoint in {folder}",
            f"checkpoints of stage {stage}",
            f"run --config.stage={stage} first",
        )
    return state


def fit(
    run: Run,
    stage: str,
    variables: Tree,
    watcher: Watcher,
    appearance: Appearance | None = None,
) -> states.TrainState:
    """Train one stage to its end, from its newest checkpoint if it has one.

    Args:
        run: The run.
        stage: "discover" or "refine".
        variables: Where training starts without a checkpoint.
        watcher: Looks on.
        appearance: What "refine" learns from besides motion.
    """
    training_set = training_sets.find(
        run.config, inputs.training_clips(run.config), inputs.flow(run)
    )
    config = with_fitting_crop(run.config, training_set.size)
    rate = config[stage]
    parallel.check_batch(rate.batch_size)
    model = build_model(config, parallel.AXIS)
    optimizer = stage_optimizer(config, stage)
    step = steps.make_step(
        steps.make_loss(
            model, config, stage, appearance.channels if appearance else ()
        ),
        optimizer,
        config,
        rate.ema,
        mask_size(config.model, tuple(config.augment.crop)),
    )
    source = pipeline.make_source(
        config,
        training_set,
        "discover" if stage == "discover" else "refine",
        run.workdir / "prepare",
        _read_targets(training_set, appearance.targets if appearance else None),
        parallel.process(),
    )
    return loop.train(
        stage,
        step,
        states.create_state(variables, optimizer, config.seed, rate.ema),
        source.batches,
        run.workdir / stage,
        loop.Schedule(
            rate.steps, rate.checkpoint_every, rate.log_every, stage_rate(config, stage)
        ),
        watcher,
    )


def with_fitting_crop(config: ConfigDict, size: tuple[int, int]) -> ConfigDict:
    """Return the config with a crop that frames of `size` can give, and say so.

    Raises:
        UserError: If the crop does not fit and `augment.fit_crop` is off.
    """
    if not config.augment.fit_crop:
        crops.check_crop(size, config.augment)
        return config
    crop = crops.fit_crop(size, config.augment)
    if crop == tuple(config.augment.crop):
        return config
    logging.info("training crop %s: %s does not fit", crop, config.augment.crop)
    fitted = config.copy_and_resolve_references().unlock()
    fitted.augment.crop = crop
    return fitted.lock()


def _read_targets(
    training_set: training_sets.TrainingSet, folder: Path | None
) -> list[np.ndarray] | None:
    if folder is None:
        return None
    return [target_files.read(folder, clip.name) for clip in training_set.clips]
