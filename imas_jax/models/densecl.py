"""DenseCL: a backbone learns from images alone, whole images and dense features alike.

Wang et al., "Dense Contrastive Learning for Self-Supervised Visual Pre-Training", CVPR
2021, as their code does it; the paper's frozen features and its backbone's start come
from there (Sec. 4.1). Two views of an image go through a query and a key encoder; each
image, and each place of its feature grid, is to be told from those of other images.

Modules and pure functions; who updates what is in `training/contrast.py`.
"""

from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn
from flax import struct
from jaxtyping import Array, Float, Int

from imas_jax.conventions import HostOrDevice
from imas_jax.models import layers
from imas_jax.models.segmenter import BACKBONES

he_fan_in = nn.initializers.variance_scaling(2.0, "fan_in", "normal")
SMALLEST = 1e-12  # length below which a vector is not normalised (torch's)

# Our modules of the neck -> the authors' names.
LAYERS = {"mlp_0": "mlp.0", "mlp_2": "mlp.2", "mlp2_0": "mlp2.0", "mlp2_2": "mlp2.2"}


@struct.dataclass
class Embedding:
    """What an encoder says of a batch of views; all vectors have length 1.

    Attributes:
        grid: The backbone's features at `s` places, row-major.
        image: Projection of the features' mean.
        dense: Projection of the features at each place.
        pooled: Mean of that projection before it had length 1.
    """

    grid: Float[HostOrDevice, "*b s k"]
    image: Float[HostOrDevice, "*b d"]
    dense: Float[HostOrDevice, "*b s d"]
    pooled: Float[HostOrDevice, "*b d"]


class Neck(nn.Module):
    """The two heads: one on the mean of a feature grid, one on each of its places.

    Attributes:
        hidden: Width between the two layers of each.
        features: Of what they put out.
    """

    hidden: int = 2048
    features: int = 128

    @nn.compact
    def __call__(self, grid: Float[Array, "b h w k"]) -> Embedding:
        """Project features of a backbone."""
        grid = layers.wide(grid)
        b, k = grid.shape[0], grid.shape[-1]
        x = grid.mean(axis=(1, 2))
        x = nn.relu(nn.Dense(self.hidden, kernel_init=he_fan_in, name="mlp_0")(x))
        image = nn.Dense(self.features, kernel_init=he_fan_in, name="mlp_2")(x)
        x = nn.relu(self._pointwise(self.hidden, k, "mlp2_0")(grid))
        dense = self._pointwise(self.features, self.hidden, "mlp2_2")(x)
        return Embedding(
            grid=unit(grid.reshape(b, -1, k)),
            image=unit(image),
            dense=unit(dense.reshape(b, -1, self.features)),
            pooled=unit(dense.mean(axis=(1, 2))),
        )

    def _pointwise(self, width: int, fan_in: int, name: str) -> layers.Conv:
        return layers.Conv(
            width,
            kernel=1,
            bias=True,
            kernel_init=layers.uniform_fan_in,
            bias_init=layers.uniform_bias(fan_in),
            name=name,
        )


class Encoder(nn.Module):
    """A backbone with a neck, under the names `backbone` and `neck`.

    Attributes:
        name_of_backbone: One of `segmenter.BACKBONES`.
        width: Of its first stage.
        output_stride: Of its last stage.
        stage: Of its stages the one under the neck; -1 is the deepest.
        hidden: Width of the neck.
        features: Of an embedding.
        dtype: Computation type of the backbone, or None for the input's.
    """

    name_of_backbone: str
    width: int
    output_stride: int
    stage: int = -1
    hidden: int = 2048
    features: int = 128
    dtype: Any = None

    def setup(self) -> None:
        """Make both parts; batch norm looks at one device's part of the batch alone."""
        self.backbone = BACKBONES[self.name_of_backbone].build(
            self.width, self.output_stride, None, self.dtype
        )
        self.neck = Neck(self.hidden, self.features)

    def __call__(self, frames: Float[Array, "b h w 3"], train: bool) -> Embedding:
        """Embed normalised frames."""
        frames = BACKBONES[self.name_of_backbone].renormalize(frames)
        return self.neck(self.backbone(frames, train)[self.stage])


def unit(x: Float[Array, "*b d"]) -> Float[Array, "*b d"]:
    """Give vectors length 1."""
    # The root of a square near 0 has no slope; torch's norm has 0 there, too.
    square = jnp.square(x).sum(axis=-1, keepdims=True)
    return x * jax.lax.rsqrt(jnp.maximum(square, SMALLEST**2))


def matches(query: Embedding, key: Embedding) -> Int[Array, "b s"]:
    """Find for each place of the query view the place of the key view most like it.

    By the backbones' features, of the same image; no gradient flows through it.
    """
    alike = jnp.einsum("bsk,btk->bst", query.grid, key.grid)
    return jnp.argmax(jax.lax.stop_gradient(alike), axis=-1)


def image_logits(
    query: Embedding, key: Embedding, queue: Float[Array, "n d"]
) -> tuple[Float[Array, "b 1"], Float[Array, "b n"]]:
    """Return cosines of whole images with their other view, and with the queue."""
    positive = (query.image * key.image).sum(axis=-1, keepdims=True)
    return positive, query.image @ queue.T


def dense_logits(
    query: Embedding, key: Embedding, queue: Float[Array, "n d"]
) -> tuple[Float[Array, "m 1"], Float[Array, "m n"]]:
    """Return cosines of places with what they match, and with the pooled queue."""
    found = matches(query, key)[..., None]
    matched = jnp.take_along_axis(key.dense, found, axis=1)
    positive = (query.dense * matched).sum(axis=-1).reshape(-1, 1)
    return positive, query.dense.reshape(-1, query.dense.shape[-1]) @ queue.T


def contrast(
    positive: Float[Array, "m 1"], negative: Float[Array, "m n"], temperature: float
) -> Float[Array, ""]:
    """Return the mean cross-entropy of picking the positive among the negatives."""
    logits = jnp.concatenate([positive, negative], axis=1) / temperature
    return -jax.nn.log_softmax(logits, axis=1)[:, 0].mean()
