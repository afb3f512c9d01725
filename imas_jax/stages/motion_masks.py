"""The motion baseline's mask of every frame, read off a run's flow files."""

import cv2
import numpy as np
from jaxtyping import Bool

from imas_jax.data.clips import Clip
from imas_jax.flow import motion
from imas_jax.flow.files import FlowFolder


def read(flow: FlowFolder, clip: Clip, index: int, gap: int) -> Bool[np.ndarray, "h w"]:
    """Return flow minus homography, magnitude, Otsu, at the clip's frame size.

    The last frames, which start no pair, take the backward flow of the pair they end.
    """
    if index + gap < len(clip.frames):
        field = flow.read(clip.name, index, "forward", gap)
    else:
        first = max(index - gap, 0)
        field = flow.read(clip.name, first, "backward", gap)
    whole = cv2.resize(
        field.flow.astype(np.float32), clip.size[::-1], interpolation=cv2.INTER_LINEAR
    )
    return motion.motion_mask(whole, field.homography)
