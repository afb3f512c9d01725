"""RAFT, small and large: two frames -> optical flow.

Teed & Deng, *RAFT: Recurrent All-Pairs Field Transforms for Optical Flow*, ECCV 2020;
the paper's estimator (Sec. 4.1). `make_raft` is what the flow stage calls; `Raft` is
the network, whose numbers are those of the official code in test mode.
"""

import functools
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn
from jaxtyping import Array, Float, UInt8

from imas_jax import conventions, errors, files, geometry
from imas_jax.flow import raft_correlation, raft_layers, raft_weights
from imas_jax.models import torch_files

STRIDE = 8  # pixels a feature spans
# Bytes of volume above which "auto" correlates on demand; 1280x720 both ways takes
# 3 GiB, 1920x1080 13 GiB.
VOLUME_LIMIT = 4 * 2**30

Precision = Literal["float32", "bfloat16"]
Correlation = Literal["volume", "on_demand", "auto"]
FlowPair = tuple[Float[np.ndarray, "*b h w 2"], Float[np.ndarray, "*b h w 2"]]


def make_raft(
    weights: Path,
    iterations: int,
    precision: Precision = "float32",
    correlation: Correlation = "auto",
) -> "RaftEstimator":
    """Build RAFT from a released checkpoint.

    Args:
        weights: A `.pth` of princeton-vl/RAFT or torchvision, small or large.
        iterations: Refinements, one or more; time grows in proportion.
        precision: Of encoders and update; correlation and flow stay float32.
        correlation: How it is computed; "auto" takes the volume while all of it, batch
            and both directions, stays under `VOLUME_LIMIT`.

    Raises:
        UserError: If the checkpoint does not fit; every mismatch is listed.
    """
    if iterations < 1:
        raise errors.UserError(
            f"flow.iterations = {iterations}",
            "one refinement or more",
            "set --config.flow.iterations=20, RAFT's own choice",
        )
    size, variables = load_weights(weights)
    sha256 = files.digest(weights)[:16]
    digest = f"raft-{size}-it{iterations}-{precision}-{correlation}-{sha256}"
    compute = functools.partial(
        flow_both_ways, size, iterations, precision, correlation
    )
    return RaftEstimator(digest, jax.device_put(variables), jax.jit(compute))


def load_weights(path: Path) -> tuple[raft_layers.Size, conventions.Tree]:
    """Read a checkpoint: which network it holds, and its variables.

    Raises:
        UserError: If it cannot be read or does not fit.
    """
    checkpoint = torch_files.read_checkpoint(path)
    size, _ = raft_weights.identify(checkpoint, path)
    frame = jax.ShapeDtypeStruct((1, 64, 64, 3), jnp.float32)
    init = functools.partial(Raft(size).init, iterations=1)
    wanted = jax.eval_shape(init, jax.random.key(0), frame, frame)
    return size, raft_weights.convert(checkpoint, wanted, path)


class RaftEstimator:
    """RAFT with weights: uint8 frames in, flow both ways out.

    Compiles once a resolution and batch size. Safe to call from several threads.

    Attributes:
        digest: Names network, settings and weights.
    """

    def __init__(
        self,
        digest: str,
        variables: conventions.Tree,
        compute: Callable[[conventions.Tree, Array, Array], tuple[Array, Array]],
    ):
        self.digest, self._variables, self._compute = digest, variables, compute

    def __call__(
        self, frame0: UInt8[np.ndarray, "h w 3"], frame1: UInt8[np.ndarray, "h1 w1 3"]
    ) -> FlowPair:
        """Return flow 0 -> 1 and 1 -> 0 in pixels of these frames, float32.

        Raises:
            UserError: If the frames differ in size.
        """
        forward, backward = self.batch(frame0[None], frame1[None])
        return forward[0], backward[0]

    def batch(
        self,
        frames0: UInt8[np.ndarray, "b h w 3"],
        frames1: UInt8[np.ndarray, "b h1 w1 3"],
    ) -> FlowPair:
        """Return the flows of several pairs at once: faster on an accelerator.

        Raises:
            UserError: If the frames differ in size.
        """
        if frames0.shape != frames1.shape:
            raise errors.UserError(
                f"frames of shapes {frames0.shape} and {frames1.shape}",
                "two RGB frames of one size, (b, h, w, 3)",
                "resize the clip's frames to one size",
            )
        forward, backward = self._compute(self._variables, frames0, frames1)
        return np.asarray(forward), np.asarray(backward)


def flow_both_ways(
    size: raft_layers.Size,
    iterations: int,
    precision: Precision,
    correlation: Correlation,
    variables: conventions.Tree,
    frames0: UInt8[Array, "b h w 3"],
    frames1: UInt8[Array, "b h w 3"],
) -> tuple[Float[Array, "b h w 2"], Float[Array, "b h w 2"]]:
    """Return flow 0 -> 1 and 1 -> 0 of frames of any size, in their pixels."""
    b, h, w, _ = frames0.shape
    frames0, frames1 = prepare(frames0), prepare(frames1)
    if correlation == "auto":
        radius = raft_layers.ARCHITECTURES[size].radius
        grid = (frames0.shape[1] // STRIDE, frames0.shape[2] // STRIDE)
        fits = 2 * b * raft_correlation.volume_bytes(*grid, radius) <= VOLUME_LIMIT
        correlation = "volume" if fits else "on_demand"
    network = Raft(size, correlation, jnp.dtype(precision))
    # "highest": accelerators would round float32 products to TF32 or bfloat16.
    with jax.default_matmul_precision("highest"):
        forward, backward = network.apply(
            variables, frames0, frames1, iterations, method="both_ways"
        )
    return unpad(forward, (h, w)), unpad(backward, (h, w))


def prepare(frames: UInt8[Array, "b h w 3"]) -> Float[Array, "b h8 w8 3"]:
    """Scale to [-1, 1] and repeat the border up to multiples of 8, evenly."""
    frames = 2 * (frames.astype(jnp.float32) / 255) - 1
    return jnp.pad(frames, ((0, 0), *borders(*frames.shape[1:3]), (0, 0)), mode="edge")


def unpad(
    flow: Float[Array, "b h8 w8 2"], size: tuple[int, int]
) -> Float[Array, "b h w 2"]:
    """Cut off what `prepare` added."""
    (top, _), (left, _) = borders(*size)
    return flow[:, top : top + size[0], left : left + size[1]]


def borders(h: int, w: int) -> tuple[tuple[int, int], tuple[int, int]]:
    """Return what to add above and below, left and right."""
    down, right = -h % STRIDE, -w % STRIDE
    return (down // 2, down - down // 2), (right // 2, right - right // 2)


class Raft(nn.Module):
    """RAFT in inference.

    Attributes:
        size: Which of the two networks.
        correlation: `volume` is fast; `on_demand` needs no memory to speak of.
        dtype: Type of encoders and update; correlation and flow keep full precision.
    """

    size: raft_layers.Size
    correlation: raft_correlation.Method = "volume"
    dtype: Any = None

    def setup(self) -> None:
        """Declare encoders, update and, in the large network, the mask's head."""
        a = raft_layers.ARCHITECTURES[self.size]
        self.architecture = a
        self.feature_encoder = raft_layers.Encoder(a, a.features, "instance")
        self.context_encoder = raft_layers.Encoder(
            a, a.hidden + a.context, a.context_norm
        )
        self.update = raft_layers.Update(a)
        if a.mask:
            self.mask_head = raft_layers.Head(a.mask, STRIDE**2 * 9, 1)

    def __call__(
        self,
        frame0: Float[Array, "b h w 3"],
        frame1: Float[Array, "b h w 3"],
        iterations: int,
    ) -> Float[Array, "b h w 2"]:
        """Return the flow 0 -> 1 of frames in [-1, 1], sides multiples of 8, px."""
        features = self.features(jnp.concatenate([frame0, frame1]))
        features0, features1 = jnp.split(features, 2)
        return self.flow(features0, features1, self.context(frame0), iterations)

    def both_ways(
        self,
        frame0: Float[Array, "b h w 3"],
        frame1: Float[Array, "b h w 3"],
        iterations: int,
    ) -> tuple[Float[Array, "b h w 2"], Float[Array, "b h w 2"]]:
        """Return the flows 0 -> 1 and 1 -> 0; features are computed once."""
        frames = jnp.concatenate([frame0, frame1])
        features = self.features(frames)
        swapped = jnp.concatenate(jnp.split(features, 2)[::-1])
        flow = self.flow(features, swapped, self.context(frames), iterations)
        forward, backward = jnp.split(flow, 2)
        return forward, backward

    def features(self, frames: Float[Array, "b h w 3"]) -> Float[Array, "b h8 w8 d"]:
        """Return what is correlated, in full precision."""
        features = self.feature_encoder(frames.astype(self.dtype or frames.dtype))
        return features.astype(frames.dtype)

    def context(self, frames: Float[Array, "b h w 3"]) -> Float[Array, "b h8 w8 d"]:
        """Return hidden state and context, before tanh and ReLU."""
        return self.context_encoder(frames.astype(self.dtype or frames.dtype))

    def flow(
        self,
        features0: Float[Array, "b h8 w8 d"],
        features1: Float[Array, "b h8 w8 d"],
        context: Float[Array, "b h8 w8 c"],
        iterations: int,
    ) -> Float[Array, "b h w 2"]:
        """Refine from zero flow and upsample the last result."""
        a = self.architecture
        correlation = raft_correlation.build(
            features0, features1, a.radius, self.correlation
        )
        hidden = nn.tanh(context[..., : a.hidden])
        constants = self.update.constants(nn.relu(context[..., a.hidden :]))
        grid = geometry.pixel_grid(*features0.shape[1:3])[None]
        grid = jnp.broadcast_to(grid, (*features0.shape[:3], 2))
        grid = grid.astype(features0.dtype)

        def refine(
            update: raft_layers.Update, state: tuple[Array, Array], _: None
        ) -> tuple[tuple[Array, Array], None]:
            hidden, position = state
            window = raft_correlation.read(correlation, position).astype(hidden.dtype)
            flow = (position - grid).astype(hidden.dtype)
            hidden, step = update(hidden, window, flow, constants)
            return (hidden, position + step.astype(position.dtype)), None

        loop = nn.scan(
            refine,
            variable_broadcast="params",
            split_rngs={"params": False},
            length=iterations,
        )
        (hidden, position), _ = loop(self.update, (hidden, grid), None)
        flow = position - grid
        if not a.mask:
            h, w = flow.shape[1:3]
            size = (STRIDE * h, STRIDE * w)
            return geometry.resize(STRIDE * flow, size, "align_corners")
        mask = 0.25 * self.mask_head(hidden)
        return upsample_convex(flow, mask.astype(flow.dtype))


def upsample_convex(
    flow: Float[Array, "b h w 2"], mask: Float[Array, "b h w 576"]
) -> Float[Array, "b h8 w8 2"]:
    """Make each fine flow a convex combination of its 3x3 coarse ones (Sec. 3.3).

    Args:
        flow: In pixels of the coarse grid.
        mask: Logits; channels are (neighbour, fine row, fine column).
    """
    b, h, w, _ = flow.shape
    weights = nn.softmax(mask.reshape(b, h, w, 9, STRIDE, STRIDE), axis=3)
    padded = jnp.pad(STRIDE * flow, ((0, 0), (1, 1), (1, 1), (0, 0)))
    near = [padded[:, i : i + h, j : j + w] for i in range(3) for j in range(3)]
    fine = jnp.einsum("bhwkij,bhwkc->bhiwjc", weights, jnp.stack(near, axis=3))
    return fine.reshape(b, STRIDE * h, STRIDE * w, 2)
