"""One step of DenseCL: two views -> embeddings -> losses -> update (models/densecl.py).

Per-device maths; `training/parallel.py` runs it on devices. In the order of the
authors' code: query, average of the key encoder's parameters, key, losses against the
queues as they were, queues, optimiser.

Batch norm of one encoder would tell it which images are together in a batch, so keys
are shuffled among the groups that batch norm looks at (MoCo). The authors' groups are
their eight GPUs; here their number is a field, and any number of devices that divides
it gives the same step. What differs: running statistics are the mean over groups (the
authors keep the first GPU's).
"""

import dataclasses
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import struct
from jaxtyping import Array, Float, Int, Key
from ml_collections import ConfigDict

from imas_jax.conventions import Batch, HostOrDevice, Tree
from imas_jax.data import views
from imas_jax.errors import UserError
from imas_jax.models import densecl
from imas_jax.models.densecl import Embedding
from imas_jax.training import parallel
from imas_jax.training.state import AUGMENT, TrainState

SHUFFLE, QUEUES = 3, 4  # streams of randomness, as in training/state.py

Metrics = dict[str, Array]
# Parameters, running statistics, normalised views -> embedding, new statistics.
Encode = Callable[[Tree, Tree, Array], tuple[Embedding, Tree]]


@struct.dataclass
class Queues:
    """Embeddings of earlier keys, which are the negatives.

    Attributes:
        image: Of whole images.
        pooled: Means of dense projections: negatives of the dense loss.
        pointer: Where the next batch goes.
    """

    image: Float[HostOrDevice, "*r n d"]
    pooled: Float[HostOrDevice, "*r n d"]
    pointer: Int[HostOrDevice, "*r"]


@struct.dataclass
class ContrastState(TrainState):
    """As `TrainState`: `params` and `batch_stats` are the query encoder's.

    Attributes:
        ema: The key encoder: averaged parameters, running statistics of its own.
        queues: Negatives.
    """

    queues: Queues | None = None


@dataclasses.dataclass(frozen=True)
class Settings:
    """Numbers of the method; fields are those of `config.pretrain`."""

    temperature: float
    momentum: float
    dense_weight: float
    warm_up: int
    groups: int


def create_state(
    variables: Tree,
    optimizer: optax.GradientTransformation,
    seed: int,
    size: int,
    features: int,
) -> ContrastState:
    """Start at step 0: both encoders alike, queues of random directions.

    Args:
        variables: Of the encoder.
        optimizer: From `make_optimizer`.
        seed: Root of every random key.
        size: Of each queue.
        features: Of an embedding.
    """
    params, stats = variables["params"], variables.get("batch_stats", {})
    key = jax.random.fold_in(jax.random.key(seed), QUEUES)
    image, pooled = densecl.unit(jax.random.normal(key, (2, size, features)))
    return ContrastState(
        step=jnp.zeros((), jnp.int32),
        params=params,
        batch_stats=stats,
        opt_state=optimizer.init(params),
        ema=jax.tree.map(jnp.copy, {"params": params, "batch_stats": stats}),
        seed=jnp.asarray(seed, jnp.uint32),
        queues=Queues(image, pooled, jnp.zeros((), jnp.int32)),
    )


def make_optimizer(
    schedule: optax.ScalarOrSchedule, weight_decay: float
) -> optax.GradientTransformation:
    """SGD with momentum 0.9 and weight decay in the gradient, of all parameters."""
    return optax.chain(
        optax.add_decayed_weights(weight_decay), optax.sgd(schedule, momentum=0.9)
    )


def make_step(
    encode: Encode,
    optimizer: optax.GradientTransformation,
    settings: Settings,
    config: ConfigDict,
) -> Callable[[ContrastState, Batch], tuple[ContrastState, Metrics]]:
    """Build the per-device `step(state, batch) -> (state, metrics)`.

    Args:
        encode: Of one group of batch norm.
        optimizer: From `make_optimizer`.
        settings: Of the method.
        config: `config.pretrain`, of which augmentation is read.
    """

    def step(state: ContrastState, batch: Batch) -> tuple[ContrastState, Metrics]:
        root = jax.random.key(state.seed)
        augment_key, shuffle_key = (
            jax.random.fold_in(jax.random.fold_in(root, stream), state.step)
            for stream in (AUGMENT, SHUFFLE)
        )
        frames = jnp.asarray(batch.frames)  # pixels: no backbone is frozen here
        keys = parallel.example_keys(augment_key, len(frames))
        both = views.augment(frames, keys, config)
        return update(
            state, both[:, 0], both[:, 1], encode, optimizer, settings, shuffle_key
        )

    return step


def update(
    state: ContrastState,
    query: Float[Array, "b h w k"],
    key: Float[Array, "b h w k"],
    encode: Encode,
    optimizer: optax.GradientTransformation,
    settings: Settings,
    shuffle_key: Key[Array, ""],
) -> tuple[ContrastState, Metrics]:
    """Learn from one batch of view pairs (this device's part of it).

    Args:
        state: Before the step.
        query: Float[Array, "b h w k"] the gradient goes through.
        key: Other views of the same images.
        encode: Of one group of batch norm.
        optimizer: From `make_optimizer`.
        settings: Of the method.
        shuffle_key: Of the shuffle of keys among groups; the same on all devices.
    """
    queues, averaged = state.queues, state.ema
    if queues is None or averaged is None:
        raise UserError(
            "a state without queues or key encoder",
            "one of contrast.create_state",
            "start stage pretrain in an empty workdir",
        )
    grouped = in_groups(encode, settings.groups // parallel.axis_size())
    m = settings.momentum
    key_params = jax.tree.map(
        lambda k, q: m * k + (1.0 - m) * q, averaged["params"], state.params
    )

    def encode_keys(frames: Float[Array, "b h w k"]) -> tuple[Embedding, Tree]:
        return grouped(key_params, averaged["batch_stats"], frames)

    everyone, key_stats = shuffled(
        encode_keys, key, shuffle_key if settings.groups > 1 else None
    )
    everyone = jax.lax.stop_gradient(everyone)
    own = parallel.own_part(everyone, key.shape[0])
    dense_weight = jnp.where(
        state.step < settings.warm_up, 0.0, settings.dense_weight
    ).astype(own.image.dtype)

    def loss(params: Tree) -> tuple[Array, tuple[Metrics, Tree]]:
        seen, stats = grouped(params, state.batch_stats, query)
        image = densecl.image_logits(seen, own, queues.image)
        dense = densecl.dense_logits(seen, own, queues.pooled)
        metrics = {
            "image": densecl.contrast(*image, settings.temperature),
            "dense": densecl.contrast(*dense, settings.temperature),
            # How often the other view is the most alike: by chance 1 / (queue + 1).
            "image_first": jnp.mean(image[0][:, 0] > image[1].max(axis=1)),
            "dense_first": jnp.mean(dense[0][:, 0] > dense[1].max(axis=1)),
        }
        total = (1.0 - dense_weight) * metrics["image"] + dense_weight * metrics[
            "dense"
        ]
        return total, (metrics | {"loss": total}, stats)

    grads, (metrics, stats) = jax.grad(loss, has_aux=True)(state.params)
    grads, metrics, stats, key_stats = parallel.average(
        (grads, metrics, stats, key_stats)
    )
    updates, opt_state = optimizer.update(grads, state.opt_state, state.params)
    metrics["gradient_norm"] = optax.tree.norm(grads)
    moved = dataclasses.replace(
        state,
        step=state.step + 1,
        params=optax.apply_updates(state.params, updates),
        batch_stats=stats,
        opt_state=opt_state,
        ema={"params": key_params, "batch_stats": key_stats},
        queues=enqueue(queues, everyone),
    )
    return moved, metrics


def shuffled(
    encode: Callable[[Array], tuple[Embedding, Tree]],
    frames: Float[Array, "b h w k"],
    key: Key[Array, ""] | None,
) -> tuple[Embedding, Tree]:
    """Embed the views of all devices, each by another group than where it came from.

    Args:
        encode: Embeds this device's share.
        frames: This device's part.
        key: Of the order; None leaves views where they are.

    Returns:
        Embeddings of all devices' views, in their order, and statistics.
    """
    if key is None:
        embedding, stats = encode(frames)
        return parallel.gather(embedding), stats
    everyone = parallel.gather(frames)
    order = jax.random.permutation(key, everyone.shape[0])
    chosen = parallel.own_part(order, frames.shape[0])
    embedding, stats = encode(everyone[chosen])
    back = jnp.argsort(order)
    return jax.tree.map(lambda x: x[back], parallel.gather(embedding)), stats


def in_groups(encode: Encode, count: int) -> Encode:
    """Let batch norm see `count` parts of a batch, each on its own."""
    if count == 1:
        return encode

    def run(
        params: Tree, stats: Tree, frames: Float[Array, "b h w k"]
    ) -> tuple[Embedding, Tree]:
        parts = frames.reshape(count, -1, *frames.shape[1:])
        embedding, stats = jax.vmap(encode, in_axes=(None, None, 0))(
            params, stats, parts
        )
        joined = jax.tree.map(lambda x: x.reshape(-1, *x.shape[2:]), embedding)
        return joined, jax.tree.map(lambda x: x.mean(axis=0), stats)

    return run


def enqueue(queues: Queues, keys: Embedding) -> Queues:
    """Put a batch of keys in the place of the oldest."""
    size, batch = queues.image.shape[0], keys.image.shape[0]
    start = (queues.pointer, jnp.zeros_like(queues.pointer))
    return Queues(
        image=jax.lax.dynamic_update_slice(queues.image, keys.image, start),
        pooled=jax.lax.dynamic_update_slice(queues.pooled, keys.pooled, start),
        pointer=(queues.pointer + batch) % size,
    )


def check(settings: Settings, batch_size: int, size: int, devices: int) -> None:
    """Refuse numbers that do not divide as they must.

    Args:
        settings: Of the method.
        batch_size: Over all devices.
        size: Of a queue.
        devices: How many there are.

    Raises:
        UserError: With the first that does not.
    """
    groups = settings.groups
    if groups % devices or batch_size % groups:
        fits = [n for n in range(1, batch_size + 1) if not n % devices]
        fits = [n for n in fits if not batch_size % n]
        near = min(fits, key=lambda n: abs(n - groups), default=0)
        raise UserError(
            f"pretrain.groups = {groups} for a batch of {batch_size} on {devices} "
            "device(s)",
            "a multiple of the devices that divides the batch",
            f"set --config.pretrain.groups={near}"
            if near
            else "set pretrain.batch_size to a multiple of the devices",
        )
    if size % batch_size:
        near = max(int(np.round(size / batch_size)), 1) * batch_size
        raise UserError(
            f"pretrain.queue = {size} for batches of {batch_size}",
            "a multiple of the batch, which replaces the oldest keys",
            f"set --config.pretrain.queue={near}",
        )
