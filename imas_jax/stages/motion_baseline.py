"""The motion baseline's mask of every frame, read off a run's flow files."""

import cv2
import numpy as np
from jaxtyping import Bool

from imas_jax.data import clips as clips_lib
from imas_jax.flow import files, motion


def read(
    flow: files.FlowFolder, clip: clips_lib.Clip, index: int, gap: int
) -> Bool[np.ndarray, "h w"]:
    """Return flow minus homography, magnitude, Otsu, at the clip's frame size.

    A frame of a shot too short for a pair has no motion: its mask is empty.
    """
    field = field_of_frame(flow, clip, index, gap)
    if field is None:
        return np.zeros(clip.size, bool)
    return of_field(field, clip.size)


def of_field(field: files.FlowField, size: tuple[int, int]) -> Bool[np.ndarray, "h w"]:
    """Return what moves in a stored field, at a frame size."""
    whole = cv2.resize(
        field.flow.astype(np.float32), size[::-1], interpolation=cv2.INTER_LINEAR
    )
    return motion.motion_mask(whole, field.homography)


def field_of_frame(
    flow: files.FlowFolder, clip: clips_lib.Clip, index: int, gap: int
) -> files.FlowField | None:
    """Read the forward flow of a frame; of the backward flow where a shot ends."""
    pair = clips_lib.pair_of_frame(clip, index, gap)
    if pair is None:
        return None
    direction: files.Direction = "forward" if pair.first == index else "backward"
    return flow.read(clip.name, pair.first, direction, gap)
