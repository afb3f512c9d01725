"""Pictures to an MP4 that browsers and phones play: H.264, 4:2:0, the index in front.

The encoder is FFmpeg's libx264, which PyAV's wheels carry. A file that
has its name is whole.
"""

import itertools
from collections.abc import Iterable, Iterator
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
from jaxtyping import UInt8

from imas_jax import errors, files

# Visually lossless enough for masks' edges, and encoded faster than masks are made.
ENCODER = {
    "crf": "20",
    "preset": "veryfast",
    # What the conversion from RGB uses; players else guess by the picture's size.
    "x264-params": "colormatrix=smpte170m",
}


def write_video(
    path: Path, pictures: Iterable[UInt8[np.ndarray, "_ _ 3"]], rate: float = 24.0
) -> None:
    """Write an MP4; memory does not grow with its length.

    Args:
        path: The file; folders are made.
        pictures: RGB, all of one size, at least one; taken one at a time. The codec
            wants even sides: an odd last row or column is repeated.
        rate: Frames a second.

    Raises:
        UserError: If the disk or this build of PyAV cannot take the file.
        ValueError: If there are no pictures, or their sizes differ.
    """
    iterator = iter(pictures)
    first = next(iterator, None)
    if first is None:
        raise ValueError(f"no pictures for {path}")
    try:
        with files.aside(path) as draft:
            _encode(draft, _even(path, first, iterator), rate)
    except (OSError, av.FFmpegError) as error:
        raise errors.UserError(
            f"cannot write {path}: {error}",
            "a disk with room, and PyAV with libx264 as its wheels have it",
            "make room, or reinstall it with `pip install av`; then run the same "
            "command again",
        ) from error


def _encode(path: Path, pictures: Iterator[np.ndarray], rate: float) -> None:
    first = next(pictures)
    options = {"movflags": "+faststart"}  # plays before it is loaded to its end
    with av.open(str(path), "w", format="mp4", options=options) as container:
        speed = Fraction(rate).limit_denominator(1001)  # 30000/1001 is a usual rate
        stream = container.add_stream("libx264", speed, options=ENCODER)
        stream.height, stream.width = first.shape[:2]
        stream.pix_fmt = "yuv420p"
        for picture in itertools.chain((first,), pictures):
            frame = av.VideoFrame.from_ndarray(picture, format="rgb24")
            container.mux(stream.encode(frame))
        container.mux(stream.encode())


def _even(
    path: Path, first: np.ndarray, others: Iterator[np.ndarray]
) -> Iterator[np.ndarray]:
    """Yield all pictures with even sides."""
    h, w = first.shape[:2]
    padding = ((0, h % 2), (0, w % 2), (0, 0))
    yield np.ascontiguousarray(np.pad(first, padding, mode="edge"))
    for picture in others:
        if picture.shape != first.shape:
            raise ValueError(
                f"{path}: a picture of {picture.shape[:2]} among pictures of {(h, w)}"
            )
        yield np.ascontiguousarray(np.pad(picture, padding, mode="edge"))
