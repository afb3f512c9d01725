"""Vision Transformers of DINO and DINOv2; names are the checkpoint contract.

Not in the paper, whose backbone is a ResNet: features that anyone can have. ViT-S of
patch 16 and 8 (facebookresearch/dino), and of patch 14 with LayerScale, with and
without register tokens (facebookresearch/dinov2). Parameters are named as theirs, with
`blocks_3` for `blocks.3`.

Frames of any size: theirs drop the pixels beyond the last whole patch (DINO) or refuse
such frames (DINOv2); here a frame is first resized to the nearest whole number of
patches, so that the grid spans all of it (as TokenCut and RCF do).
"""

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn
from flax import traverse_util
from jaxtyping import Array, Float

from imas_jax import geometry
from imas_jax.conventions import Tree
from imas_jax.models import layers, torch_files
from imas_jax.models import position_embeddings as embeddings
from imas_jax.models.backbone import Backbone, Foreign, Layout, Name

HEAD_WIDTH = 64  # channels of one attention head, in every published size
EPSILON = 1e-6  # of layer norms
# Tokens from which attention goes head by head: each has a table of tokens^2 numbers.
LONG = 2048

_small = nn.initializers.truncated_normal(0.02)


class ViT(nn.Module):
    """A Vision Transformer without its head.

    Attributes:
        patch: Side of a patch, pixels.
        width: Channels of a token.
        depth: Blocks.
        positions: Side of the grid that position embeddings were learned on.
        layer_scale: Whether blocks scale what they add, channel by channel (DINOv2).
        registers: Tokens without a place, behind the class token. Networks with some
            resize position embeddings otherwise (position_embeddings.py).
        dtype: Computation type, or None for the input's; layer norms and softmax are
            float32 at least.
    """

    patch: int
    width: int = 384
    depth: int = 12
    positions: int = 14
    layer_scale: bool = False
    registers: int = 0
    dtype: Any = None

    def setup(self) -> None:
        """Make the parts."""
        self.patch_embed = Patches(self.patch, self.width, self.dtype)
        self.cls_token = self.param("cls_token", _small, (1, 1, self.width))
        shape = (1, 1 + self.positions**2, self.width)
        self.pos_embed = self.param("pos_embed", _small, shape)
        if self.registers:
            shape = (1, self.registers, self.width)
            self.register_tokens = self.param("register_tokens", _small, shape)
        self.blocks = [
            Block(self.width, self.layer_scale, self.dtype) for _ in range(self.depth)
        ]
        self.norm = LayerNorm()

    def __call__(
        self, frames: Float[Array, "b h w 3"], train: bool
    ) -> tuple[Float[Array, "b hp wp d"], Float[Array, "b hp wp d"]]:
        """Return patch tokens behind a quarter of the blocks and behind all of them.

        Both on the grid of patches and through the last layer norm, as their
        `get_intermediate_layers` gives them. The early ones are what feature merging
        takes: of a single scale, so without more detail (DPT's shallowest).
        """
        del train  # no dropout, no batch statistics
        x, grid = self.start(frames)
        stages = []
        for i, block in enumerate(self.blocks, start=1):
            x = block(x)
            if i in (max(self.depth // 4, 1), self.depth):
                stages.append(self.on_grid(self.norm(x), grid))
        return stages[0], stages[-1]

    def keys(self, frames: Float[Array, "b h w 3"]) -> Float[Array, "b hp wp d"]:
        """Return the last block's attention keys, heads side by side.

        Their cosines tell what belongs together better than those of the tokens
        themselves (LOST, TokenCut, RCF's stage 2.2).
        """
        x, grid = self.start(frames)
        for block in self.blocks[:-1]:
            x = block(x)
        return self.on_grid(self.blocks[-1].project(x)[1], grid)

    def start(
        self, frames: Float[Array, "b h w 3"]
    ) -> tuple[Float[Array, "b n d"], tuple[int, int]]:
        """Return the tokens of frames of any size, and the grid of their patches."""
        grid = patches((frames.shape[1], frames.shape[2]), self.patch)
        size = (grid[0] * self.patch, grid[1] * self.patch)
        x = self.patch_embed(geometry.resize(frames, size))
        return self.assemble(x, size), grid

    def assemble(
        self, x: Float[Array, "b l d"], size: tuple[int, int]
    ) -> Float[Array, "b n d"]:
        """Add places to the patches of frames of `size`, and what stands before them.

        Order: class token, registers, patches row by row.
        """
        positions = self.place(size).astype(x.dtype)
        first = self.cls_token.astype(x.dtype) + positions[:, :1]
        x = x + jnp.broadcast_to(positions[:, 1:], x.shape)
        leading = [first]
        if self.registers:
            leading.append(self.register_tokens.astype(x.dtype))
        wide = [jnp.broadcast_to(t, (len(x), *t.shape[1:])) for t in leading]
        return jnp.concatenate([*wide, x], axis=1)

    def place(self, size: tuple[int, int]) -> Float[Array, "1 n d"]:
        """Return the position embeddings of frames of `size`, the class token's first.

        Officially those of a square frame with as many patches as were learned are
        taken as they are, all others are resized: by the same rule, not to themselves.
        """
        grid = (size[0] // self.patch, size[1] // self.patch)
        side = self.positions
        if grid[0] * grid[1] == side**2 and size[0] == size[1]:
            return self.pos_embed
        table = self.pos_embed[0, 1:].reshape(side, side, self.width)
        table = embeddings.resize(table, grid, antialias=self.registers > 0)
        flat = table.reshape(1, -1, self.width)
        return jnp.concatenate([self.pos_embed[:, :1], flat], axis=1)

    def on_grid(
        self, x: Float[Array, "b n d"], grid: tuple[int, int]
    ) -> Float[Array, "b hp wp d"]:
        """Return the patches' tokens alone, in their places."""
        return x[:, 1 + self.registers :].reshape(len(x), *grid, x.shape[-1])


class Patches(nn.Module):
    """A linear map of whole patches; pixels beyond the last one are not seen."""

    patch: int
    width: int
    dtype: Any = None

    @nn.compact
    def __call__(self, x: Float[Array, "b h w 3"]) -> Float[Array, "b l d"]:
        """Return patches row by row."""
        p = self.patch
        kernel = self.param("kernel", _small, (p, p, 3, self.width))
        bias = self.param("bias", nn.initializers.zeros_init(), (self.width,))
        dtype = self.dtype or x.dtype
        h, w = x.shape[1] // p, x.shape[2] // p
        x = x[:, : h * p, : w * p].reshape(-1, h, p, w, p, 3)
        x = x.transpose(0, 1, 3, 2, 4, 5).reshape(-1, h * w, p * p * 3)
        x = x.astype(dtype) @ kernel.reshape(-1, self.width).astype(dtype)
        return x + bias.astype(dtype)[None, None]


class Block(nn.Module):
    """Attention and MLP, each behind a layer norm and added to what came in."""

    width: int
    layer_scale: bool
    dtype: Any = None

    def setup(self) -> None:
        """Make the parts."""
        self.norm1, self.norm2 = LayerNorm(), LayerNorm()
        self.attn, self.mlp = Attention(self.width, self.dtype), MLP(self.dtype)
        if self.layer_scale:
            self.ls1, self.ls2 = LayerScale(), LayerScale()

    def __call__(self, x: Float[Array, "b n d"]) -> Float[Array, "b n d"]:
        """Apply the block."""
        y = self.attn(self.norm1(x))
        x = x + (self.ls1(y) if self.layer_scale else y)
        y = self.mlp(self.norm2(x))
        return x + (self.ls2(y) if self.layer_scale else y)

    def project(self, x: Float[Array, "b n d"]) -> tuple[Float[Array, "b n d"], ...]:
        """Return the queries, keys and values of what comes in."""
        return self.attn.project(self.norm1(x))


class Attention(nn.Module):
    """Self-attention of all tokens, in heads of `HEAD_WIDTH` channels."""

    width: int
    dtype: Any = None

    def setup(self) -> None:
        """Make both linear maps."""
        self.qkv = _dense(3 * self.width, self.dtype)
        self.proj = _dense(self.width, self.dtype)

    def __call__(self, x: Float[Array, "b n d"]) -> Float[Array, "b n d"]:
        """Attend."""
        b, n, d = x.shape
        heads = max(d // HEAD_WIDTH, 1)
        q, k, v = (
            part.reshape(b, n, heads, -1).transpose(2, 0, 1, 3)
            for part in self.project(x)
        )
        each = jax.vmap(attend) if n < LONG else _one_by_one
        return self.proj(each(q, k, v).transpose(1, 2, 0, 3).reshape(b, n, d))

    def project(self, x: Float[Array, "b n d"]) -> tuple[Float[Array, "b n d"], ...]:
        """Return queries, keys and values, heads side by side."""
        return tuple(jnp.split(self.qkv(x), 3, axis=-1))


class MLP(nn.Module):
    """Two linear maps, four times as wide between them."""

    dtype: Any = None

    @nn.compact
    def __call__(self, x: Float[Array, "b n d"]) -> Float[Array, "b n d"]:
        """Apply both."""
        d = x.shape[-1]
        x = nn.gelu(_dense(4 * d, self.dtype, "fc1")(x), approximate=False)
        return _dense(d, self.dtype, "fc2")(x)


class LayerNorm(nn.Module):
    """Layer norm in full precision."""

    @nn.compact
    def __call__(self, x: Float[Array, "b n d"]) -> Float[Array, "b n d"]:
        """Normalise every token."""
        scale = self.param("scale", nn.initializers.ones_init(), x.shape[-1:])
        bias = self.param("bias", nn.initializers.zeros_init(), x.shape[-1:])
        full = layers.wide(x)
        centred = full - full.mean(axis=-1, keepdims=True)
        variance = jnp.square(centred).mean(axis=-1, keepdims=True)
        full = centred * jax.lax.rsqrt(variance + EPSILON)
        return (full * scale[None, None] + bias[None, None]).astype(x.dtype)


class LayerScale(nn.Module):
    """A learned factor for each channel."""

    @nn.compact
    def __call__(self, x: Float[Array, "b n d"]) -> Float[Array, "b n d"]:
        """Scale; starts near nothing, as DINOv2 is trained."""
        gamma = self.param("gamma", nn.initializers.constant(1e-5), x.shape[-1:])
        return x * gamma.astype(x.dtype)[None, None]


def attend(
    q: Float[Array, "b n k"], k: Float[Array, "b n k"], v: Float[Array, "b n k"]
) -> Float[Array, "b n k"]:
    """Average values by softmax of the scaled products of queries and keys."""
    products = jnp.einsum("bik,bjk->bij", q * q.shape[-1] ** -0.5, k)
    weights = jax.nn.softmax(layers.wide(products), axis=-1).astype(v.dtype)
    return jnp.einsum("bij,bjk->bik", weights, v)


def patches(size: tuple[int, int], patch: int) -> tuple[int, int]:
    """Return the nearest whole number of patches along both axes, at least one."""
    return max(round(size[0] / patch), 1), max(round(size[1] / patch), 1)


def _one_by_one(*qkv: Array) -> Array:
    return jax.lax.map(lambda one: attend(*one), qkv)


def _dense(width: int, dtype: Any, name: str | None = None) -> nn.Dense:
    return nn.Dense(width, dtype=dtype, kernel_init=_small, name=name)


# A training's own files; a teacher (`torch_files.WRAPPERS`) is what is published.
IN_TRAINING = (
    Layout("DINO in training", "backbone.", ("head.", "dino_head.", "ibot_head.")),
    Layout("DINO's student", "module.backbone.", ("module.head.",)),
)
# What DINOv2 puts in the place of hidden patches has no use here.
OUTSIDE = ("head.", "mask_token")
CLASSIFIER = "head.weight"


def torch_names(variables: Tree) -> dict[Name, str]:
    """Return our leaf -> the official name."""
    names = {}
    for name in traverse_util.flatten_dict(variables):
        _, *modules, leaf = name
        parts = [part.replace("blocks_", "blocks.") for part in modules]
        if modules == ["patch_embed"]:
            parts.append("proj")
        names[name] = ".".join([*parts, torch_files.LEAVES.get(leaf, leaf)])
    return names


def describe(tensors: Mapping[str, np.ndarray], prefix: str) -> str:
    """Say which Vision Transformer a file seems to hold."""
    width, *_, patch = (*tensors[f"{prefix}patch_embed.proj.weight"].shape, 0, 0)[:4]
    blocks = sum(f"{prefix}blocks.{i}.norm1.weight" in tensors for i in range(64))
    extra = " with LayerScale" * (f"{prefix}blocks.0.ls1.gamma" in tensors)
    extra += " and registers" * (f"{prefix}register_tokens" in tensors)
    return f"a ViT of width {width}, {blocks} blocks, patches of {patch}{extra}"


def objection(tensors: Mapping[str, np.ndarray], prefix: str) -> str:
    """Say why a file that has all names is yet another network's; "" where it is not.

    MoCo v3's have the same tensors, but heads of half as many channels, which no tensor
    tells. They are known by their position embeddings, which nobody learned.
    """
    table = tensors.get(f"{prefix}pos_embed")
    if table is None or not embeddings.are_sines(table):
        return ""
    return "its position embeddings are sines, as MoCo v3's: heads of 32 channels"


def _backbone(
    patch: int, positions: int, layer_scale: bool = False, registers: int = 0
) -> Backbone:
    def build(width: int, output_stride: int, axis_name: str | None, dtype: Any) -> ViT:
        del output_stride, axis_name  # it has one, and no batch statistics
        return ViT(
            patch,
            width,
            positions=positions,
            layer_scale=layer_scale,
            registers=registers,
            dtype=dtype,
        )

    family = "DINOv2" if layer_scale else "DINO"
    layouts = (*IN_TRAINING, Layout(family, "", OUTSIDE, CLASSIFIER))
    landmark = "patch_embed.proj.weight"
    return Backbone(
        build,
        width=384,
        strides=(patch,),
        merge_stride=patch,
        grid=patches,
        foreign=Foreign(
            *("Vision Transformer", landmark, layouts, torch_names, describe, objection)
        ),
        compared="keys",
    )


S16, S8, S14 = _backbone(16, 14), _backbone(8, 28), _backbone(14, 37, layer_scale=True)
S14_REG = _backbone(14, 37, layer_scale=True, registers=4)
