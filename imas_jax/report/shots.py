"""What an export is told of a clip, and of each of its frames."""

import dataclasses

import numpy as np
from jaxtyping import Bool, Float, UInt8


@dataclasses.dataclass(frozen=True)
class About:
    """A clip.

    Attributes:
        name: Of the clip.
        count: Frames.
        size: (h, w) of frames and masks, the files' own.
        rate: Frames a second.
    """

    name: str
    count: int
    size: tuple[int, int]
    rate: float


@dataclasses.dataclass(frozen=True)
class Shot:
    """A frame.

    Attributes:
        name: The frame's, e.g. "00012".
        file: Its image's file name, e.g. "00012.jpg"; of a frame in a video file, the
            name that `ffmpeg -i clip.mp4 -start_number 0 %05d.png` gives it.
        mask: The object.
        image: RGB; None where no format looks at it.
        soft: Probability of the object in [0, 1]; None where no format looks at it.
    """

    name: str
    file: str
    mask: Bool[np.ndarray, "h w"]
    image: UInt8[np.ndarray, "h w 3"] | None = None
    soft: Float[np.ndarray, "h w"] | None = None
