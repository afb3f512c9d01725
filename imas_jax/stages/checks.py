"""What can be told to be wrong with a config before any work is done.

Flow of a data set takes hours; the wrong checkpoint must not wait until training to be
found. Fields alone are checked before (`fields.py`), data by the stages that read them.
"""

import importlib.util
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
from absl import logging
from ml_collections import ConfigDict

from imas_jax.appearance import crf
from imas_jax.data import layouts
from imas_jax.errors import ProblemList, UserError, bullet
from imas_jax.flow import estimators
from imas_jax.models import imas, pretrained
from imas_jax.report import exports
from imas_jax.runs import restoring
from imas_jax.stages import features, frozen, motion
from imas_jax.stages import network as stages_network
from imas_jax.training import parallel

# Stages that need neither a network nor what follows it.
BEFORE_NETWORK = (
    *("flow", "prepare", "tune", "score", "ablate", "each", "evidence", "pretrain"),
    "push",
)
SCORED = ("evaluate", "report")  # goals that score masks


def check(config: ConfigDict, goal: str) -> None:
    """Refuse a config that some stage on the way to `goal` would refuse.

    Args:
        config: The whole config, resolved.
        goal: Stage to be finished.

    Raises:
        UserError: With everything that was found.
    """
    wanted = [
        flow,
        network,
        starts,
        teachers,
        batches,
        frozen_features,
        solver,
        online_targets,
        frozen_backbone,
        shards,
        watchers,
        formats,
    ]
    if goal in BEFORE_NETWORK:
        few = {"flow": [flow], "prepare": [flow, shards], "push": [destination]}
        wanted = few.get(goal, [])
    if goal in SCORED:
        wanted.append(scored_sequences)
    found = []
    for one in wanted:
        try:
            one(config)
        except UserError as error:
            found.append(error)
    if len(found) == 1:
        raise found[0]
    if found:
        raise UserError(
            f"{len(found)} parts of the config are wrong:\n"
            + bullet([error.found for error in found]),
            bullet([error.expected for error in found]).strip(),
            bullet([error.fix for error in found]).strip(),
        )


def flow(config: ConfigDict) -> None:
    """See whether the estimator's weights are there and are asked for; fetch them."""
    wanted = config.flow
    if config.restore or _done(config, "flow"):
        return
    if wanted.estimator == "raft":
        estimators.weights(wanted)
    elif wanted.weights:
        raise UserError(
            f"flow.weights = {wanted.weights!r}, but flow.estimator = "
            f"{wanted.estimator!r} has none",
            "weights of RAFT with flow.estimator = 'raft' only",
            "set --config.flow.estimator=raft, or leave flow.weights empty",
        )


def network(config: ConfigDict) -> None:
    """Build the network without computing it; see whether its weights fit."""
    model = imas.make_model(config)
    if not config.model.weights or _done(config, "discover") or config.discover.init:
        return
    frames = jnp.zeros((1, 2, 64, 64, 3))
    shapes = jax.eval_shape(
        lambda key: model.init(key, frames, train=False), jax.random.key(0)
    )
    stages_network.load_weights(shapes, config)


def starts(config: ConfigDict) -> None:
    """Read the weights that a stage is to start from."""
    for stage in ("discover", "refine"):
        if not _done(config, stage):
            stages_network.weights_of_run(config, stage)


def teachers(config: ConfigDict) -> None:
    """See whether each stage has something to learn from."""
    if motion.alone(config) and (config.refine.steps > 0 or config.data.frames > 0):
        raise UserError(
            "discover.steps = 0 and predict.evidence = 1 (masks of the motion evidence "
            f"alone), refine.steps = {config.refine.steps}, data.frames = "
            f"{config.data.frames}",
            "0 for both: there is no network to refine, nor one for further frames",
            "set both to 0, or train stage 1: --config.discover.steps=100",
        )
    for stage, other in (("discover", "evidence"), ("refine", "appearance")):
        weights = config[stage]
        if weights.motion_weight == 0 and weights[f"{other}_weight"] == 0:
            raise UserError(
                f"{stage}.motion_weight = 0 and {stage}.{other}_weight = 0",
                "a loss: one of the two, or both",
                "set one of them above 0",
            )


def batches(config: ConfigDict) -> None:
    """See whether the devices can share the batches."""
    for stage in ("discover", "refine"):
        if config[stage].steps > 0 and not _done(config, stage):
            parallel.check_batch(config[stage].batch_size)


def frozen_features(config: ConfigDict) -> None:
    """See whether the frozen network is there where it is asked for."""
    judged = config.align.score != "motion" and config.align.features == "weights"
    constrained = (
        config.target.semantic_constraint
        and config.refine.steps > 0
        and features.constraint_kind(config) == "weights"
    )
    if (judged or constrained) and not _done(config, "refine"):
        pretrained.load_backbone(features.weights_file(config), config.align.backbone)


def solver(config: ConfigDict) -> None:
    """See whether the library behind the CRF is installed, if there is a CRF."""
    if config.refine.steps > 0 or config.predict.crf:
        crf.check_solver(config.crf.solver)


def frozen_backbone(config: ConfigDict) -> None:
    """See whether heads alone can be trained as the config wants."""
    if not frozen.parts(config) or _done(config, "refine"):
        return
    problems = ProblemList()
    if not (config.model.weights or config.discover.init or _done(config, "discover")):
        problems.add("model.weights", "'', so that the backbone is random")
    wanted = {
        "model.name": "imas",
        "data.source": "memory",
        "target.when": "between",
        "augment.scale_flow": False,
    }
    _want(config, wanted, problems)
    problems.raise_if_any(
        "model.trained = 'heads'",
        "a backbone with weights, and nothing that asks for the pixels it saw",
        "correct these fields, or set --config.model.trained=all",
    )


def scored_sequences(config: ConfigDict) -> None:
    """Look up the sequences to score; say if the run has none of them."""
    split, own = config.evaluate.split, config.data.sequences
    if not split or _done(config, "evaluate"):
        return
    names = layouts.members(config.data, split)
    if own and not set(own) & set(names):
        logging.warning(
            "no masks will be scored: evaluate.split = %r has none of data.sequences "
            "(%s); --config.evaluate.split= scores all that are annotated",
            split,
            ", ".join(own),
        )


def shards(config: ConfigDict) -> None:
    """See whether what reads shards is installed, if a stage still has to."""
    if config.data.source != "tfrecord" or config.restore:
        return
    missing = importlib.util.find_spec("tensorflow") is None
    for stage in ("discover", "refine"):
        if missing and config[stage].steps > 0 and not _done(config, stage):
            raise UserError(
                "data.source = 'tfrecord', but TensorFlow is not installed",
                "the optional extra",
                "pip install 'imas_jax[tfrecord]', or set --config.data.source=memory",
            )


def online_targets(config: ConfigDict) -> None:
    """See whether targets that are made while training can be made so."""
    if config.refine.steps == 0 or config.target.when == "between":
        return
    problems = ProblemList()
    if config.refine.ema == 0:
        problems.add("refine.ema", "0, so that there is no teacher (RCF: 0.999)")
    if config.data.source == "device":
        problems.add("data.source", "'device', so that the host sees no batch")
    wanted = {
        "target.resolution": "mask",
        "target.semantic_constraint": False,
        "crf.solver": "lattice",
    }
    _want(config, wanted, problems)
    problems.raise_if_any(
        "target.when = 'online'",
        "a teacher, and a CRF alone at mask resolution",
        "correct these fields, or set --config.target.when=between",
    )


def watchers(config: ConfigDict) -> None:
    """See whether what is asked to watch training is installed."""
    for name in ("wandb", "trackio"):
        if config.watch[name] and importlib.util.find_spec(name) is None:
            raise UserError(
                f"watch.{name} = {config.watch[name]!r}, but {name} is not installed",
                "the optional extra",
                f"pip install 'imas_jax[{name}]', or leave watch.{name} empty",
            )


def formats(config: ConfigDict) -> None:
    """See whether what writes further formats of masks is installed."""
    exports.check(config.predict.formats)


def destination(config: ConfigDict) -> None:
    """See whether it is told where a run is to be pushed to."""
    if not config.push.to:
        raise UserError(
            "push.to is empty",
            "a repository at the hub",
            "set --config.push.to=hf://user/name",
        )


def _done(config: ConfigDict, stage: str) -> bool:
    """Tell whether a stage is finished: what it read may be gone by now."""
    if restoring.brought_in(config, stage):
        return True
    return (Path(config.workdir) / stage / "result.json").is_file()


def _want(config: ConfigDict, wanted: Mapping[str, Any], problems: ProblemList) -> None:
    """Add each field that has another value than the one wanted."""
    for field, value in wanted.items():
        section, name = field.split(".")
        if config[section][name] != value:
            problems.add(field, f"{config[section][name]!r}, not {value!r}")
