"""What a backbone says of itself, so that nothing else need know which one it is.

A new backbone is one file, which ends with such a record, and one line in
`segmenter.BACKBONES`. Foreign checkpoints are read by the names and layouts that its
record has; `pretrained.py` knows no network.
"""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

import jax.numpy as jnp
import numpy as np
from flax import linen as nn
from jaxtyping import Array, Float

from imas_jax.conventions import IMAGENET_MEAN, IMAGENET_STD, Tree

Name = tuple[str, ...]
# Width, output stride, device axis of batch norm, computation type -> module.
Build = Callable[[int, int, str | None, Any], nn.Module]


@dataclasses.dataclass(frozen=True)
class Layout:
    """How one family of files wraps the names of a network's tensors.

    Attributes:
        family: Who writes it.
        prefix: What stands before all names.
        ignored: How names begin that such files hold beside the network's.
        classifier: A tensor that only networks trained with labels have, or "".
        whole: Whether the file holds the authors' whole network.
    """

    family: str
    prefix: str
    ignored: tuple[str, ...] = ()
    classifier: str = ""
    whole: bool = False


@dataclasses.dataclass(frozen=True)
class Foreign:
    """How other people's files hold a backbone.

    Attributes:
        kind: What it is called, for messages.
        landmark: A tensor every such network has; the first of `layouts` with
            `prefix + landmark` in a file is the file's.
        layouts: Known families of files.
        names: Variables of the backbone -> name of each leaf, without prefix.
        describe: Tensors of a file and their prefix -> what it seems to hold, in words.
        objection: The same -> why it is another network's although all names and shapes
            fit, or "".
    """

    kind: str
    landmark: str
    layouts: tuple[Layout, ...]
    names: Callable[[Tree], dict[Name, str]]
    describe: Callable[[Mapping[str, np.ndarray], str], str]
    objection: Callable[[Mapping[str, np.ndarray], str], str] = lambda *_: ""


def rounded_up(size: tuple[int, int], stride: int) -> tuple[int, int]:
    """Return the grid of strided convolutions with torch's padding."""
    return -(-size[0] // stride), -(-size[1] // stride)


@dataclasses.dataclass(frozen=True)
class Backbone:
    """A backbone as the rest of the project sees it.

    Attributes:
        build: Makes the module. It maps normalised frames of any size and `train` to
            stages: the first is what feature merging takes, the last the deepest.
        width: Of the published network.
        strides: Pixels of the frame a step of the last stage may span, finest first;
            any whole number, as a Vision Transformer's patch of 14.
        foreign: How files hold it.
        merge_stride: The same of the first stage; None if it has nothing to merge.
        grid: (h, w) of a frame and a stride -> (h, w) of that stage.
        compared: The module's method that gives the features whose cosines tell what
            belongs together; "" takes the last stage.
        mean: Of RGB in [0, 1], as it was trained.
        std: The same.
    """

    build: Build
    width: int
    strides: tuple[int, ...]
    foreign: Foreign
    merge_stride: int | None = 4
    grid: Callable[[tuple[int, int], int], tuple[int, int]] = rounded_up
    compared: str = ""
    mean: tuple[float, float, float] = IMAGENET_MEAN
    std: tuple[float, float, float] = IMAGENET_STD

    def published(self) -> nn.Module:
        """Build the network that weights are published for, at its finest stride."""
        return self.build(self.width, self.strides[0], None, None)

    def compare(
        self, model: nn.Module, variables: Tree, frames: Float[Array, "b h w 3"]
    ) -> Float[Array, "b hs ws k"]:
        """Return the features of normalised frames that are compared by cosine."""
        frames = self.renormalize(frames)
        if self.compared:
            found: Any = model.apply(variables, frames, method=self.compared)
            return found
        stages: Any = model.apply(variables, frames, train=False)
        return stages[-1]

    def renormalize(self, frames: Float[Array, "b h w 3"]) -> Float[Array, "b h w 3"]:
        """Bring frames normalised by ImageNet's statistics to the backbone's own."""
        if (self.mean, self.std) == (IMAGENET_MEAN, IMAGENET_STD):
            return frames
        mean, std = np.array(self.mean), np.array(self.std)
        scale = np.array(IMAGENET_STD) / std
        shift = (np.array(IMAGENET_MEAN) - mean) / std
        scale, shift = (
            jnp.asarray(each.reshape(1, 1, 1, 3), frames.dtype)
            for each in (scale, shift)
        )
        return frames * scale + shift
