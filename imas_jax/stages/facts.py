"""What decides a stage's result besides its own fields, told by content, not by path.

A run compares these between calls: a data set, a workdir or a file of weights may move
or be given another name and nothing is trained again. A fact is None where it cannot be
told any more, such as weights that are gone; a finished stage then stands.
"""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from ml_collections import ConfigDict

from imas_jax import files
from imas_jax.errors import UserError
from imas_jax.flow import estimators
from imas_jax.flow import evidence as evidences
from imas_jax.models import named
from imas_jax.runs import restoring
from imas_jax.runs.run import Run
from imas_jax.stages import align, features, frozen, inputs, motion

Facts = Mapping[str, Callable[[Run], Any]]


def clips(run: Run) -> list[str]:
    """Tell the clips that get masks."""
    return [clip.contents() for clip in inputs.clips(run)]


def training_clips(run: Run) -> list[str]:
    """Tell the clips, or what is taken of them, that flow and training see."""
    return [clip.contents() for clip in inputs.training_clips(run)]


def flow_settings(run: Run) -> str | None:
    """Tell the estimator, its weights and its settings."""
    config = run.config.flow
    if config.estimator == "raft" and config.weights:
        if named.present(config.weights) is None:
            return None
    return estimators.digest(config)


def weights(run: Run) -> str | None:
    """Tell the weights that training starts from."""
    return _file(run.config.model.weights)


def frozen_features(run: Run) -> str:
    """Tell at what size a frozen backbone sees frames: the others see crops."""
    if not frozen.parts(run.config):
        return ""
    return f"short side {run.config.predict.short_side}"


def start_of(stage: str) -> Callable[[Run], str | None]:
    """Make what tells the run whose weights a stage starts from."""

    def start(run: Run) -> str | None:
        folder = run.config[stage].init
        if not folder or _gone(folder):
            return None if folder else ""
        return restoring.last_trained(Path(folder)).identity

    return start


def evidence(run: Run) -> str:
    """Tell the network that says what moves, where one does."""
    config = run.config
    if config.motion.evidence != "network":
        return ""
    network = "+".join(map(evidences.digest, motion.networks(config)))
    return network + (config.crf.solver if config.motion.crf else "")


def judge(run: Run) -> str | None:
    """Tell how channels are judged; features do not matter to motion."""
    config = run.config
    if not align.looks(config.align.score):
        return ""
    return _features(config, features.kind_of(config))


def constraint(run: Run) -> str | None:
    """Tell what equation 12 compares, where stage 2 is constrained at all."""
    config = run.config
    if not config.target.semantic_constraint or config.refine.steps == 0:
        return ""
    return _features(config, features.constraint_kind(config))


def _features(config: ConfigDict, kind: str) -> str | None:
    told = f"{kind} above {features.threshold(config, kind)}"
    if kind != "weights":
        return told
    found = _file(features.weights_name(config)[0])
    return found and f"{told} {config.align.backbone} {found}"


def _file(text: str) -> str | None:
    """Return a file's digest, "" for no file, None for one that is not there."""
    if not text:
        return ""
    path = named.present(text)
    if path is None:
        return None
    try:
        return files.digest(path)[:16]
    except OSError as error:
        raise UserError(
            f"{path} cannot be read: {error}", "a file", "name another, or repair it"
        ) from error


def _gone(name: str) -> bool:
    return not Path(name).exists()
