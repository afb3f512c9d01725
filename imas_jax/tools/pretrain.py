"""Trains a backbone by DenseCL: stage pretrain, on any folder of images or videos.

The step is `training/contrast.py`'s, the loop that of all training: a killed run goes
on, and ends with the same bits. At the end the query encoder's backbone is written to
`<workdir>/pretrain/backbone.safetensors`, by the names files of that network have, for
`model.weights`. No annotation is read.
"""

import hashlib
import json
from pathlib import Path
from typing import Final

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import traverse_util
from ml_collections import ConfigDict

from imas_jax.conventions import Tree
from imas_jax.data import order, stills
from imas_jax.errors import ProblemList
from imas_jax.models import densecl, imas, torch_files
from imas_jax.models.segmenter import BACKBONES
from imas_jax.runs.run import Output, Run
from imas_jax.stages import inputs
from imas_jax.training import contrast, loop, parallel
from imas_jax.training.state import TrainState
from imas_jax.training.watching import Nobody

NAME: Final = "pretrain"
WEIGHTS = "backbone.safetensors"
SECTIONS = (
    *("data", NAME, "precision", "seed"),
    *("model.backbone", "model.width", "model.output_stride"),
)


def work(run: Run) -> Output:
    """Train, or go on, to the last step; write the backbone."""
    config, folder = run.config, run.workdir / NAME
    how = config.pretrain
    parallel.check_batch(how.batch_size)
    settings = contrast.Settings(
        how.temperature, how.momentum, how.dense_weight, how.warm_up, how.groups
    )
    contrast.check(settings, how.batch_size, how.queue, parallel.device_count())
    check_backbone(config)
    found = find(config)
    index, count = parallel.process()
    source = stills.Source(
        found,
        order.Order(len(found.pairs), how.batch_size, config.seed, NAME, index, count),
        folder / "frames",
    )
    model = encoder(config)
    rate = optax.cosine_decay_schedule(how.learning_rate, max(how.steps, 1))
    optimizer = contrast.make_optimizer(rate, how.weight_decay)
    state = loop.train(
        NAME,
        contrast.make_step(encode_with(model), optimizer, settings, how),
        contrast.create_state(
            initial_variables(model, config.seed),
            optimizer,
            config.seed,
            how.queue,
            how.features,
        ),
        source.batches,
        folder,
        loop.Schedule(how.steps, how.checkpoint_every, how.log_every, rate),
        Keeper(config, folder),
    )
    path = folder / WEIGHTS
    if index == 0:
        write_backbone(path, state.variables, config)
    parallel.wait_for_all()
    log = inputs.training_log(folder)
    return Output(
        hashlib.sha256(path.read_bytes()).hexdigest(),
        {
            "steps": int(state.step),
            "weights": str(path),
            "backbone": config.model.backbone,
            "frames": found.count,
            "last": log[-1] if log else {},
            "timing": inputs.training_timing(folder),
        },
    )


class Keeper(Nobody):
    """Writes the backbone of some steps as they pass, `pretrain.keep_every`.

    Args:
        config: The whole config.
        folder: The stage's.
    """

    def __init__(self, config: ConfigDict, folder: Path):
        self._config, self._folder = config, folder

    def wants(self, step: int) -> bool:
        """Tell whether this step's weights are kept."""
        every = self._config.pretrain.keep_every
        return every > 0 and step % every == 0

    def state(self, step: int, state: TrainState) -> None:
        """Write them."""
        path = self._folder / f"backbone-{step:07d}.safetensors"
        write_backbone(path, state.variables, self._config)


def find(config: ConfigDict) -> stills.Stills:
    """Find what is learned from."""
    how = config.pretrain
    return stills.find(config.data, how.short_side, how.neighbours)


def contents(run: Run) -> str:
    """Tell what is learned from: names, lengths of files and sizes, as one digest."""
    parts = [
        [clip.name, clip.size, len(clip.frames)]
        + [frame.path.stat().st_size for frame in clip.frames if frame.path]
        for clip in find(run.config).clips
    ]
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:16]


def encoder(config: ConfigDict) -> densecl.Encoder:
    """Build backbone and heads."""
    return densecl.Encoder(
        config.model.backbone,
        config.model.width,
        config.model.output_stride,
        config.pretrain.stage,
        config.pretrain.hidden,
        config.pretrain.features,
        imas.DTYPES[config.precision],
    )


def encode_with(model: densecl.Encoder) -> contrast.Encode:
    """Return what embeds views with given variables and tells new statistics."""

    def encode(
        params: Tree, stats: Tree, frames: jax.Array
    ) -> tuple[densecl.Embedding, Tree]:
        seen, changed = model.apply(
            {"params": params, "batch_stats": stats},
            frames,
            True,
            mutable=["batch_stats"],
        )
        return seen, changed.get("batch_stats", {})

    return encode


def initial_variables(model: densecl.Encoder, seed: int) -> Tree:
    """Start at random, every batch norm with scale 1.

    The backbones here start the last of each residual block at 0; DenseCL does not.
    """
    frames = jnp.zeros((1, 64, 64, 3))
    variables = jax.jit(lambda: model.init(jax.random.key(seed), frames, True))()
    leaves = traverse_util.flatten_dict(variables)
    return traverse_util.unflatten_dict(
        {
            name: jnp.ones_like(leaf) if name[-1] == "scale" else leaf
            for name, leaf in leaves.items()
        }
    )


def check_backbone(config: ConfigDict) -> None:
    """Refuse a backbone that cannot be built.

    Raises:
        UserError: With all that is wrong.
    """
    model, record = config.model, BACKBONES[config.model.backbone]
    problems = ProblemList()
    if model.output_stride not in record.strides:
        listed = ", ".join(map(str, record.strides))
        problems.add("model.output_stride", f"{model.output_stride}, not {listed}")
    else:
        module = record.build(model.width, model.output_stride, None, None)
        view = jnp.zeros((1, config.pretrain.crop, config.pretrain.crop, 3))
        stages = jax.eval_shape(
            lambda key: module.init_with_output(key, view, False)[0], jax.random.key(0)
        )
        if config.pretrain.stage >= len(stages):
            problems.add(
                "pretrain.stage",
                f"{config.pretrain.stage}, {model.backbone} has {len(stages)}, from 0",
            )
    problems.raise_if_any(
        "stage pretrain", "a backbone's own choices", "correct these fields"
    )


def write_backbone(path: Path, variables: Tree, config: ConfigDict) -> None:
    """Write the backbone alone, by the names that `model.weights` reads."""
    part = {kind: tree["backbone"] for kind, tree in variables.items() if tree}
    names = BACKBONES[config.model.backbone].foreign.names(part)
    tensors = {
        names[path]: torch_files.to_torch(np.asarray(leaf))
        for path, leaf in traverse_util.flatten_dict(part).items()
    }
    about = {
        "made_by": "stage pretrain (DenseCL)",
        "backbone": config.model.backbone,
        "width": config.model.width,
        "supervision": "none",
    }
    torch_files.write_safetensors(path, tensors, about)
