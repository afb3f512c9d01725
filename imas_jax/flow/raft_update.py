"""RAFT's recurrent refinement in Flax: motion encoder, gated units, output heads.

Teed & Deng, *RAFT: Recurrent All-Pairs Field Transforms for Optical Flow*, ECCV 2020,
Sec. 3.3 and appendix A. Names are the checkpoint contract (`raft_weights.py`).
"""

import jax.numpy as jnp
from flax import linen as nn
from jaxtyping import Array, Float

from imas_jax.flow import raft_layers
from imas_jax.models import layers


class MotionEncoder(nn.Module):
    """Correlation and current flow to motion features (appendix A)."""

    architecture: raft_layers.Architecture

    @nn.compact
    def __call__(
        self,
        correlation: Float[Array, "b h8 w8 k"],
        flow: Float[Array, "b h8 w8 2"],
    ) -> Float[Array, "b h8 w8 d"]:
        """Encode, and append the flow itself."""
        x, y = correlation, flow
        for i, width in enumerate(self.architecture.correlation_widths, start=1):
            kernel = 1 if i == 1 else 3
            x = nn.relu(raft_layers.Conv(width, kernel, name=f"correlation{i}")(x))
        for i, width in enumerate(self.architecture.flow_widths, start=1):
            kernel = 7 if i == 1 else 3
            y = nn.relu(raft_layers.Conv(width, kernel, name=f"flow{i}")(y))
        x = jnp.concatenate([x, y], axis=-1)
        x = nn.relu(raft_layers.Conv(self.architecture.motion, 3, name="fuse")(x))
        return jnp.concatenate([x, flow], axis=-1)


class Gate(nn.Module):
    """One convolution of a gated unit, on hidden state, context and motion in turn.

    The context does not change between refinements, so its share of the sum is computed
    once: a quarter (small) or a third (large) of the unit's work.
    """

    architecture: raft_layers.Architecture
    kernel_size: tuple[int, int]

    def setup(self) -> None:
        """Declare the kernel over all three inputs, in the official order."""
        a = self.architecture
        inputs = a.hidden + a.context + a.motion + 2
        shape = (*self.kernel_size, inputs, a.hidden)
        self.kernel = self.param("kernel", layers.he_fan_out, shape)
        self.bias = self.param("bias", nn.initializers.zeros_init(), (a.hidden,))

    def constant(self, context: Float[Array, "b h w c"]) -> Float[Array, "b h w d"]:
        """Return the share of the context, and the bias."""
        a = self.architecture
        rows = self.kernel[:, :, a.hidden : a.hidden + a.context]
        bias = self.bias.astype(context.dtype)
        return raft_layers.convolve(context, rows) + bias[None, None, None]

    def __call__(
        self, x: Float[Array, "b h w k"], constant: Float[Array, "b h w d"]
    ) -> Float[Array, "b h w d"]:
        """Return the sum of all shares; `x` is hidden state and motion features."""
        a = self.architecture
        context = slice(a.hidden, a.hidden + a.context)
        kernel = jnp.delete(self.kernel, context, axis=2)
        return raft_layers.convolve(x, kernel) + constant


class GatedUnit(nn.Module):
    """Convolutional gated recurrent unit (Sec. 3.3)."""

    architecture: raft_layers.Architecture
    kernel_size: tuple[int, int]

    def setup(self) -> None:
        """Declare the three gates."""
        self.update = Gate(self.architecture, self.kernel_size)
        self.reset = Gate(self.architecture, self.kernel_size)
        self.proposal = Gate(self.architecture, self.kernel_size)

    def constants(self, context: Float[Array, "b h w c"]) -> tuple[Array, ...]:
        """Return what each gate adds at every refinement."""
        return tuple(
            gate.constant(context) for gate in (self.update, self.reset, self.proposal)
        )

    def __call__(
        self,
        hidden: Float[Array, "b h w d"],
        motion: Float[Array, "b h w k"],
        constants: tuple[Array, ...],
    ) -> Float[Array, "b h w d"]:
        """Return the new hidden state."""
        x = jnp.concatenate([hidden, motion], axis=-1)
        update = nn.sigmoid(self.update(x, constants[0]))
        reset = nn.sigmoid(self.reset(x, constants[1]))
        x = jnp.concatenate([reset * hidden, motion], axis=-1)
        proposal = nn.tanh(self.proposal(x, constants[2]))
        return (1 - update) * hidden + update * proposal


class Update(nn.Module):
    """One refinement of the flow (Sec. 3.3)."""

    architecture: raft_layers.Architecture

    def setup(self) -> None:
        """Declare motion encoder, gated units and flow head."""
        a = self.architecture
        self.motion_encoder = MotionEncoder(a)
        self.units = [GatedUnit(a, kernel) for kernel in a.gru_kernels]
        self.head = Head(a.head, 2, 3)

    def constants(
        self, context: Float[Array, "b h w c"]
    ) -> tuple[tuple[Array, ...], ...]:
        """Return what the gates of each unit add at every refinement."""
        return tuple(unit.constants(context) for unit in self.units)

    def __call__(
        self,
        hidden: Float[Array, "b h w d"],
        correlation: Float[Array, "b h w k"],
        flow: Float[Array, "b h w 2"],
        constants: tuple[tuple[Array, ...], ...],
    ) -> tuple[Float[Array, "b h w d"], Float[Array, "b h w 2"]]:
        """Return the new hidden state and the change of the flow."""
        motion = self.motion_encoder(correlation, flow)
        for unit, constant in zip(self.units, constants, strict=True):
            hidden = unit(hidden, motion, constant)
        return hidden, self.head(hidden)


class Head(nn.Module):
    """3x3 convolution, ReLU and a last convolution."""

    width: int
    features: int
    kernel: int

    @nn.compact
    def __call__(self, x: Float[Array, "b h w k"]) -> Float[Array, "b h w d"]:
        """Read off the hidden state."""
        x = nn.relu(raft_layers.Conv(self.width, 3, name="conv1")(x))
        return raft_layers.Conv(self.features, self.kernel, name="conv2")(x)
