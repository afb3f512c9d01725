"""The one way masks leave a network: frames in, soft masks out, one at a time.

Whole frames at inference resolution (paper code: short side 392), no augmentation,
running statistics. Memory does not grow with the length of a clip.
"""

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import islice
from typing import Any, TypeAlias

import jax
import numpy as np
from jaxtyping import Float, UInt8
from ml_collections import ConfigDict

from imas_jax import geometry
from imas_jax.conventions import Features, Tree
from imas_jax.data.augment import eval_sample
from imas_jax.models.segmenter import Segmenter
from imas_jax.training import parallel

# Frames as the host has them, or what a frozen backbone sees in them.
Seen: TypeAlias = np.ndarray | jax.Array | Features
Look = Callable[[Sequence[np.ndarray]], Sequence[Features]]


class Predictor:
    """Soft masks of any number of frames; compiles once a frame size.

    Args:
        model: The network.
        variables: Its parameters and statistics.
        config: The `predict` part of a config.
        look: Gives what a frozen backbone sees in frames; None where it is not frozen.
        devices: Of this process, that share the frames; 0 is every one. Each has a
            batch of `config.batch_size` at a time, so masks have the same bits however
            many there are.
    """

    def __init__(
        self,
        model: Segmenter,
        variables: Tree,
        config: ConfigDict,
        look: Look | None = None,
        devices: int = 0,
    ):
        self._batch, self._flip, self._look = config.batch_size, config.flip, look

        def masks(variables: Tree, batch: tuple[Seen, Seen | None]) -> jax.Array:
            def soft(frames: Seen) -> jax.Array:
                seen = sample(frames, config.short_side)
                logits: Any = model.apply(variables, seen, method="segment")
                return jax.nn.softmax(logits)

            frames, mirrored = batch
            if mirrored is None:
                return soft(frames)
            return (soft(frames) + soft(mirrored)[:, :, ::-1]) / 2

        self._masks = parallel.Spread(masks, variables, devices)

    def load(self, variables: Tree) -> None:
        """Go on with other parameters of the same network, without compiling again."""
        self._masks.load(variables)

    def __call__(
        self, frames: Iterable[UInt8[np.ndarray, "h w 3"]]
    ) -> Iterator[Float[np.ndarray, "hm wm c"]]:
        """Yield the soft masks of each frame, in order; frames share one size."""
        return self.of_clips([frames])

    def of_clips(
        self, clips: Iterable[Iterable[UInt8[np.ndarray, "h w 3"]]]
    ) -> Iterator[Float[np.ndarray, "hm wm c"]]:
        """Yield the soft masks of each frame of one clip after the other.

        Devices that a clip's end leaves free go on with the next clip.

        Args:
            clips: Frames of each; those of one clip share one size.
        """
        counts: deque[int] = deque()

        def batches() -> Iterator[tuple[Seen, Seen | None]]:
            for frames in clips:
                iterator = iter(frames)
                while group := list(islice(iterator, self._batch)):
                    counts.append(len(group))
                    # The last group is filled up so that shapes never recompile.
                    group += [group[-1]] * (self._batch - len(group))
                    mirrored = None
                    if self._flip:
                        mirrored = self._see([frame[:, ::-1] for frame in group])
                    yield self._see(group), mirrored

        for masks in self._masks.each(batches()):
            yield from masks[: counts.popleft()]

    def _see(self, frames: list[np.ndarray]) -> Seen:
        """Return what the network gets of frames: their pixels, or features."""
        seen = frames if self._look is None else self._look(frames)
        return jax.tree.map(lambda *each: np.stack(each), *seen)


def sample(frames: Seen, short_side: int) -> jax.Array | Features:
    """Resize and normalise pixels for the network; features are what they are."""
    if isinstance(frames, Features):
        return frames
    return eval_sample(frames, inference_size(frames.shape[1:3], short_side))


def inference_size(size: tuple[int, ...], short_side: int) -> tuple[int, int]:
    """Scale (h, w) to a short side, keeping aspect; 0 keeps the size."""
    h, w = size[0], size[1]
    if short_side == 0:
        return h, w
    factor = short_side / min(h, w)
    return round(h * factor), round(w * factor)


def to_frame(
    soft: Float[np.ndarray, "hm wm c"], size: tuple[int, int]
) -> Float[np.ndarray, "h w c"]:
    """Bring soft masks to frame resolution as the authors evaluate.

    Bilinear with aligned corners (paper code, evaluation only). Two samples an axis: on
    one CPU core several times faster than products with matrices of mostly zeros.
    """
    top, bottom, y = geometry.taps(soft.shape[0], size[0], "align_corners")
    left, right, x = geometry.taps(soft.shape[1], size[1], "align_corners")
    y, x = y.astype(np.float32)[:, None, None], x.astype(np.float32)[:, None]
    wide = soft[:, left] * (1 - x) + soft[:, right] * x
    return wide[top] * (1 - y) + wide[bottom] * y
