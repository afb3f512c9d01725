"""Frozen features of stage 2 and alignment (paper Sec. 3.3, equations 10-13)."""

import hashlib
from collections.abc import Callable
from functools import lru_cache
from pathlib import Path

import jax
import numpy as np
from jaxtyping import Float, UInt8
from ml_collections import ConfigDict

from imas_jax.data.augment import eval_sample
from imas_jax.errors import UserError
from imas_jax.models import pretrained
from imas_jax.models.resnet import ResNet
from imas_jax.predict import inference_size

Features = Callable[[UInt8[np.ndarray, "h w 3"]], Float[np.ndarray, "hu wu k"]]


def weights_file(config: ConfigDict) -> Path:
    """Return the frozen network's checkpoint.

    Raises:
        UserError: If none is given.
    """
    name = config.align.weights or config.model.weights
    if not name:
        raise UserError(
            "semantic features are asked for, but no weights are given",
            "a self-supervised ResNet-50 checkpoint (DenseCL in the paper)",
            "set --config.align.weights=FILE, or use --config.align.score=motion and "
            "--config.target.semantic_constraint=False",
        )
    return Path(name)


def digest(config: ConfigDict) -> str:
    """Hash the frozen network's checkpoint file."""
    return hashlib.sha256(weights_file(config).read_bytes()).hexdigest()[:16]


def frozen(config: ConfigDict) -> Features:
    """Return a function from a frame to its last ResNet-50 stage at stride 8."""
    return _frozen(weights_file(config), config.predict.short_side)


@lru_cache(maxsize=1)
def _frozen(weights: Path, short_side: int) -> Features:
    model = ResNet(depth=50)
    variables = pretrained.load_backbone(weights, depth=50)

    @jax.jit
    def stage_4(frames: jax.Array) -> jax.Array:
        size = inference_size(frames.shape[1:3], short_side)
        return model.apply(variables, eval_sample(frames, size), train=False)[-1]

    return lambda frame: np.asarray(stage_4(frame[None]))[0]
