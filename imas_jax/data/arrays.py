"""Frames that come as arrays: checked one by one, and stored as a folder of files."""

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
from jaxtyping import UInt8
from PIL import Image

from imas_jax import files
from imas_jax.data import clip_checks, images
from imas_jax.errors import UserError

Frame: TypeAlias = UInt8[np.ndarray, "h w 3"]


def checked(frames: Any) -> Iterator[Frame]:
    """Yield frames that are RGB arrays of one size.

    Raises:
        UserError: With the number of the frame, and what makes it one.
    """
    if (isinstance(frames, np.ndarray) and frames.ndim != 4) or not hasattr(
        frames, "__iter__"
    ):
        raise UserError(
            f"one {type(frames).__name__}"
            + (f" of shape {frames.shape}" if isinstance(frames, np.ndarray) else ""),
            "a path, or frames: an iterable of arrays (h, w, 3), an array (t, h, w, 3)",
            "put a single frame into a list: [frame]",
        )
    size: tuple[int, ...] | None = None
    for t, frame in enumerate(frames):
        image = np.asarray(frame)
        if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3:
            raise UserError(
                f"frame {t} is {image.dtype} of shape {image.shape}",
                "RGB, uint8 of shape (h, w, 3)",
                "; ".join(_conversions(image)),
            )
        size = size or image.shape
        if image.shape != size or min(image.shape[:2]) < clip_checks.SHORTEST_SIDE:
            raise UserError(
                f"frame {t} has (h, w) = {image.shape[:2]}, frame 0 {size[:2]}",
                f"one size, sides of at least {clip_checks.SHORTEST_SIDE} px",
                "resize or pad the frames before",
            )
        yield image


def _conversions(image: np.ndarray) -> Iterator[str]:
    """Say what makes an array a frame."""
    if image.dtype.kind == "f":
        yield "values in [0, 1]: (255 * frame).round().astype(np.uint8)"
    elif image.dtype == np.uint16:
        yield "16 bits: (frame // 256).astype(np.uint8)"
    elif image.dtype != np.uint8:
        yield "give numbers from 0 to 255 as np.uint8; of files give their folder"
    if image.ndim == 2:
        yield "grey: np.repeat(frame[..., None], 3, axis=-1)"
    elif image.ndim == 3 and image.shape[2] == 4:
        yield "RGBA: frame[..., :3]"
    elif image.ndim == 3 and image.shape[2] == 1:
        yield "grey: np.repeat(frame, 3, axis=-1)"
    elif image.ndim == 3 and image.shape[0] == 3:
        yield "channels first: frame.transpose(1, 2, 0)"
    elif image.ndim != 3 or image.shape[2] != 3:
        yield "three channels, last"


def stored(folder: Path, frames: Iterable[Frame]) -> Path:
    """Write frames that are not there yet; return their folder.

    Raises:
        UserError: If they are no frames, too few, or others than those that are there.
    """
    count = 0
    for count, frame in enumerate(checked(frames), start=1):
        path = folder / f"{count - 1:05d}.png"
        if not path.is_file():
            with files.aside(path) as draft:
                Image.fromarray(frame).save(draft, compress_level=1)
        elif not np.array_equal(images.read_image(path), frame):
            raise _others(folder, f"frame {count - 1} is another one")
    more = len(list(folder.glob("[!.]*.png"))) - count
    if more > 0:
        raise _others(folder, f"{count} frames, where {count + more} are")
    if count < 2:
        raise UserError(
            f"{count} frame(s)",
            "two or more: what is looked for moves between them",
            "give all frames of the clip, in order",
        )
    return folder


def _others(folder: Path, found: str) -> UserError:
    return UserError(
        f"{folder}: {found}",
        "the frames that this workdir was begun with",
        "choose another workdir for another clip, or remove this one",
    )
