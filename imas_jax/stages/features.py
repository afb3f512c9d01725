"""Frozen features of stage 2 and alignment (paper Sec. 3.3, equations 10-13)."""

from collections.abc import Callable, Iterable, Iterator
from functools import lru_cache
from pathlib import Path
from typing import Any, TypeAlias

import jax
import numpy as np
from jaxtyping import Float, UInt8
from ml_collections import ConfigDict

from imas_jax import files
from imas_jax.appearance import local_features
from imas_jax.conventions import Tree
from imas_jax.data.augment import eval_sample
from imas_jax.errors import UserError
from imas_jax.models import named, pretrained
from imas_jax.models.segmenter import BACKBONES
from imas_jax.runs.run import Run
from imas_jax.stages import network
from imas_jax.stages.predictor import inference_size
from imas_jax.training import parallel

Seen: TypeAlias = Float[np.ndarray, "hu wu k"]


class Features:
    """What is compared by: a map from frames to features on any grid.

    Args:
        each: Maps frames, uint8 RGB `(h, w, 3)`, in order; a few are drawn at a time.
    """

    def __init__(self, each: Callable[[Iterable[np.ndarray]], Iterator[Seen]]):
        self.each = each

    def __call__(self, frame: UInt8[np.ndarray, "h w 3"]) -> Seen:
        """Return the features of one frame."""
        return next(self.each([frame]))


# Without weights: benchmarks/results/alignment.md says why.
FALLBACK = "superpixels"

# theta of equations 11 and 13 by kind of features, for align.threshold = 0. The paper
# says that its features need no tuning and prints no value. The others: where the mean
# score of the winning channel is highest, label-free: benchmarks/results/alignment.md.
THRESHOLDS = {
    "weights": 0.5,
    "stage1": 0.7,
    "palette": 0.6,
    "superpixels": 0.7,
}


def judging(run: Run) -> Features:
    """Return the features that judge channels, as `align.features` names them.

    Raises:
        UserError: If their weights are not given.
    """
    config = run.config
    kind = kind_of(config)
    if kind == "weights":
        return frozen(config)
    if kind == "stage1":
        return _stage_1(run)
    return Features(lambda frames: map(local_features.LOCAL[kind], frames))


def kind_of(config: ConfigDict) -> str:
    """Resolve `align.features`, "auto" included."""
    kind = config.align.features
    if kind == "auto":
        return "weights" if config.align.weights or config.model.weights else FALLBACK
    return kind


def constraining(run: Run) -> tuple[Features, str, float]:
    """Return what equation 12 compares: features, what they are, and theta.

    The paper's are those of a trained network; `align.features = auto` stands for them
    here, since without a trained network the constraint is off (IMAS-LR). Other
    features constrain only where the config names them.

    Raises:
        UserError: If their weights are not given.
    """
    kind = constraint_kind(run.config)
    theta = threshold(run.config, kind)
    if kind == "weights":
        return frozen(run.config), digest(run.config), theta
    identity = kind
    if kind == "stage1":
        identity += f" {run.result('discover')['identity']}"
    return judging(run), identity, theta


def constraint_kind(config: ConfigDict) -> str:
    """Resolve `align.features` for equation 12."""
    return "weights" if config.align.features == "auto" else kind_of(config)


def threshold(config: ConfigDict, kind: str) -> float:
    """Return theta for features of a kind."""
    return config.align.threshold or THRESHOLDS[kind]


def weights_name(config: ConfigDict) -> tuple[str, str]:
    """Return what names the frozen network's checkpoint, and which field does.

    Raises:
        UserError: If none does.
    """
    for section in ("align", "model"):
        if config[section].weights:
            return config[section].weights, f"{section}.weights"
    raise UserError(
        "features of a trained network are asked for, but no weights are given",
        "self-supervised weights of align.backbone (DenseCL in the paper): a name "
        "(python -m imas_jax.weights lists them) or a file",
        "set --config.align.weights=NAME, or do without them: "
        "--config.align.features=auto and --config.target.semantic_constraint=False",
    )


def weights_file(config: ConfigDict) -> Path:
    """Return the frozen network's checkpoint; what has a name is fetched if need be.

    Raises:
        UserError: If none is given, and as `named.find` raises it.
    """
    text, field = weights_name(config)
    allowed = config.model.allow_supervised
    # Whichever field names them, align.backbone says what they are of.
    return named.find(text, field, config.align.backbone, allowed, "align.backbone")


def digest(config: ConfigDict) -> str:
    """Hash the frozen network's checkpoint file."""
    return files.digest(weights_file(config))[:16]


def frozen(config: ConfigDict) -> Features:
    """Return a function from a frame to what the trained network compares by."""
    short_side = config.predict.short_side
    return _frozen(weights_file(config), config.align.backbone, short_side)


@lru_cache(maxsize=1)
def _frozen(weights: Path, backbone: str, short_side: int) -> Features:
    variables = pretrained.load_backbone(weights, backbone)
    record = BACKBONES[backbone]
    model = record.published()

    def see(variables: Tree, frames: jax.Array) -> jax.Array:
        return record.compare(model, variables, frames)

    return _on_frames(see, variables, short_side)


def _stage_1(run: Run) -> Features:
    """Take the network whose masks are judged: its deepest features."""
    config = run.config
    state = network.final_state(config, run.folder("discover"), "discover")
    model = network.build_model(config)

    def deep(variables: Tree, frames: jax.Array) -> jax.Array:
        features: Any = model.apply(variables, frames, False, method="features")
        return features.deep

    short_side = config.predict.short_side
    see = _on_frames(deep, state.best_variables, short_side)
    # Centred, for no cosine was ever trained on them: all would be alike.
    return Features(lambda frames: map(local_features.standardize, see.each(frames)))


def _on_frames(
    network: Callable[[Tree, jax.Array], jax.Array], variables: Tree, short_side: int
) -> Features:
    """Run a network on single frames at inference size, one on each device."""

    def run(variables: Tree, frames: jax.Array) -> jax.Array:
        size = inference_size(frames.shape[1:3], short_side)
        return network(variables, eval_sample(frames, size))

    spread = parallel.Spread(run, variables)

    def each(frames: Iterable[np.ndarray]) -> Iterator[Seen]:
        for found in spread.each(frame[None] for frame in frames):
            yield np.asarray(found, np.float32)[0]

    return Features(each)
