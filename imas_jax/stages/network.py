"""The network of a run: built, started, and read from its checkpoints."""

from pathlib import Path

import jax
import jax.numpy as jnp
import optax
from ml_collections import ConfigDict

from imas_jax.conventions import Tree
from imas_jax.errors import UserError
from imas_jax.models import named, pretrained
from imas_jax.models.amd import AMD
from imas_jax.models.imas import IMAS, make_model
from imas_jax.runs import restoring
from imas_jax.stages import frozen
from imas_jax.stages.predictor import Predictor
from imas_jax.training import state as states
from imas_jax.training.checkpoints import Checkpoints


def build_model(config: ConfigDict, axis_name: str | None = None) -> IMAS | AMD:
    """Build the config's network."""
    return make_model(config, axis_name)


def initial_variables(model: IMAS | AMD, config: ConfigDict) -> Tree:
    """Start a network: random, with backbone weights from a file where one is named."""
    # Parameters do not depend on the size of the frames they are made with.
    frames = jnp.zeros((1, 2, 64, 64, 3))
    keys = {"params": jax.random.key(config.seed), "dropout": jax.random.key(0)}
    variables = jax.jit(lambda: model.init(keys, frames, train=False))()
    return load_weights(variables, config)


def load_weights(variables: Tree, config: ConfigDict) -> Tree:
    """Fill a network, or shapes of one, with what `model.weights` names, if it does.

    Raises:
        UserError: As `named.find` and `pretrained.load_into` raise it.
    """
    wanted = config.model
    if not wanted.weights:
        return variables
    path = named.find(
        wanted.weights, "model.weights", wanted.backbone, wanted.allow_supervised
    )
    return pretrained.load_into(variables, path, wanted.backbone, wanted.averaged)


def weights_of_run(config: ConfigDict, stage: str) -> Tree | None:
    """Read the weights of the run that `<stage>.init` names; None where it names none.

    Raises:
        UserError: If that run is not there, is not finished, or is another network's.
    """
    if not config[stage].init:
        return None
    run = Path(config[stage].init)
    found = restoring.last_trained(run)
    theirs = config.copy_and_resolve_references().unlock()
    # Averaged weights, a teacher and what is frozen are part of a state, so its shape
    # is that run's.
    noted = restoring.network_of(run)
    theirs[stage].ema = float(noted[f"{found.stage}.ema"])
    theirs.model.trained = noted["model.trained"]
    online = found.stage == "refine" and noted.get("target.when") == "online"
    return final_state(theirs, found.folder, stage, online).best_variables


def predictor(
    config: ConfigDict, workdir: Path, variables: Tree, devices: int = 0
) -> Predictor:
    """Build what predicts with a trained network, on frozen features if these are.

    Args:
        config: The whole config, or a stage's view of it.
        workdir: Of the run.
        variables: All of the network's.
        devices: Of this process, that share the frames; 0 is every one.
    """
    model = build_model(config)
    look = frozen.open_store(config, workdir, model, variables)
    return Predictor(model, variables, config.predict, look, devices)


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


def template(
    config: ConfigDict, stage: str, online: bool | None = None
) -> states.TrainState:
    """Return shapes and types of a stage's state, without computing anything.

    Args:
        config: The whole config.
        stage: "discover" or "refine".
        online: Whether the state has a teacher; None as the config says.
    """
    if online is None:
        online = stage == "refine" and config.target.when == "online"
    model = build_model(config)
    optimizer = stage_optimizer(config, stage)

    def start() -> states.TrainState:
        frames = jnp.zeros((1, 2, 64, 64, 3))
        keys = {"params": jax.random.key(0), "dropout": jax.random.key(0)}
        variables = model.init(keys, frames, train=False)
        return states.create_state(
            variables, optimizer, 0, config[stage].ema, online, frozen.parts(config)
        )

    return jax.eval_shape(start)


def final_state(
    config: ConfigDict, folder: Path, stage: str, online: bool | None = None
) -> states.TrainState:
    """Read the newest sound checkpoint of a training stage.

    Args:
        config: The whole config.
        folder: The stage's.
        stage: "discover" or "refine".
        online: As `template` takes it.

    Raises:
        UserError: If there is none, or it is another network's.
    """
    checkpoints = Checkpoints(folder / "checkpoints")
    try:
        state = checkpoints.restore(template(config, stage, online))
    finally:
        checkpoints.close()
    if state is None:
        raise UserError(
            f"no checkpoint in {folder}",
            f"checkpoints of stage {stage}, of a run that trains "
            "(configs/video.py:quick does not)",
            f"run --config.stage={stage} first",
        )
    return state
