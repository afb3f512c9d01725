"""The network of the motion evidence: a U-Net small enough for one core.

Not in the paper. It reads what `flow/evidence.py` observes and knows no file; its
weights lie in the package, made by `python -m imas_jax.main --config=configs/motion.py`.
"""

import jax.numpy as jnp
from flax import linen as nn
from jaxtyping import Array, Float

from imas_jax.models import layers


class EvidenceNet(nn.Module):
    """Five scales, two convolutions each on the way down, one on the way up.

    Attributes:
        widths: Channels of each scale, finest first.
    """

    widths: tuple[int, ...] = (16, 32, 64, 96, 128)

    @nn.compact
    def __call__(self, x: Float[Array, "b h w k"], train: bool) -> Float[Array, "b h w"]:
        """Return the logit of "moves on its own" at each pixel."""

        def block(x: Array, width: int, stride: int, name: str) -> Array:
            x = layers.Conv(width, stride=stride, name=f"{name}_conv")(x)
            return nn.relu(layers.BatchNorm(name=f"{name}_bn")(x, train))

        skips = []
        for number, width in enumerate(self.widths):
            x = block(x, width, 1 if number == 0 else 2, f"down{number}a")
            x = block(x, width, 1, f"down{number}b")
            skips.append(x)
        for number in reversed(range(len(self.widths) - 1)):
            fine = skips[number]
            width = fine.shape[-1]
            x = layers.Conv(width, kernel=1, name=f"up{number}_project")(x)
            x = layers.resize(x, (fine.shape[1], fine.shape[2]))
            x = block(jnp.concatenate([x, fine], axis=-1), width, 1, f"up{number}")
        logit = layers.Conv(1, kernel=1, bias=True, name="logit")(x)
        return logit[..., 0]
