"""The network of the motion evidence: a U-Net small enough for one core.

Not in the paper. It reads what `flow/evidence.py` observes and knows no file; its
weights lie in the package, made by `configs/motion.py`.
"""

import jax
import jax.numpy as jnp
from flax import linen as nn
from jaxtyping import Array, Float

from imas_jax.conventions import Tree
from imas_jax.models import layers


class EvidenceNet(nn.Module):
    """Five scales from the grid's own down to 1/16, and back.

    Attributes:
        widths: Channels of each scale, finest first.
        context: At the coarsest scale two more layers, and between them the mean over
            the frame: what else moves says what stands out.
    """

    widths: tuple[int, ...] = (8, 24, 48, 96, 128)
    context: bool = True

    @nn.compact
    def __call__(
        self, x: Float[Array, "b h w k"], train: bool
    ) -> Float[Array, "b h w"]:
        """Return the logit of "moves on its own" at each pixel."""

        def block(x: Array, width: int, stride: int, name: str) -> Array:
            x = layers.Conv(width, stride=stride, name=f"{name}_conv")(x)
            return nn.relu(layers.BatchNorm(name=f"{name}_bn")(x, train))

        skips = [block(x, self.widths[0], 1, "down0")]
        for number, width in enumerate(self.widths[1:], start=1):
            x = block(skips[-1], width, 2, f"down{number}")
            skips.append(block(x, width, 1, f"same{number}"))
        x = skips.pop()
        if self.context:
            width = x.shape[-1]
            deeper = block(x, width, 1, "deep1")
            mean = deeper.mean((1, 2), keepdims=True)
            deeper = deeper + nn.Dense(width, name="context")(mean)
            x = x + block(deeper, width, 1, "deep2")
        for number, fine in reversed(list(enumerate(skips))):
            # Added skips after a 1x1 convolution, as in `unet.py`: half the arithmetic.
            x = layers.Conv(fine.shape[-1], kernel=1, name=f"up{number}_project")(x)
            x = fine + layers.resize(x, (fine.shape[1], fine.shape[2]))
            x = block(x, fine.shape[-1], 1, f"up{number}")
        return layers.Conv(1, kernel=1, bias=True, name="logit")(x)[..., 0]


def template(net: EvidenceNet, channels: int) -> Tree:
    """Return the shapes of a network's variables."""
    x = jax.ShapeDtypeStruct((1, 32, 32, channels), jnp.float32)
    return jax.eval_shape(lambda key, x: net.init(key, x, False), jax.random.key(0), x)


def network_of(variables: Tree) -> EvidenceNet:
    """Read off its variables which network they are of.

    Raises:
        KeyError: If they are of something else.
    """
    parameters = variables["params"]
    count = max(
        sum(name.endswith("_conv") and name.startswith("down") for name in parameters),
        1,
    )
    widths = tuple(
        parameters[f"down{number}_conv"]["kernel"].shape[-1] for number in range(count)
    )
    return EvidenceNet(widths, "context" in parameters)
