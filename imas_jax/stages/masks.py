"""Soft masks of a run on disk: one `.npy` a clip, written frame by frame.

A clip's file is float16 `(t, hm, wm, c)` and is complete when it has its name. Reading
maps it, so memory does not grow with a clip's length.
"""

import os
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
from jaxtyping import Bool, Float16
from PIL import Image

from imas_jax import array_files
from imas_jax.data.clips import Clip
from imas_jax.errors import UserError
from imas_jax.predict import Predictor
from imas_jax.progress import progress


def write_all(folder: Path, clips: Sequence[Clip], predictor: Predictor) -> None:
    """Predict the clips that have no file yet."""
    folder.mkdir(parents=True, exist_ok=True)
    missing = [clip for clip in clips if not path(folder, clip).is_file()]
    total = sum(len(clip.frames) for clip in missing)
    frames = (step for clip in missing for step in _write(folder, clip, predictor))
    for _ in progress(frames, total, "masks", "frame"):
        pass


def read(folder: Path, clip: Clip) -> Float16[np.ndarray, "t hm wm c"]:
    """Map one clip's soft masks.

    Raises:
        UserError: If they are not there or not of this clip.
    """
    file = path(folder, clip)
    try:
        masks = array_files.read_npy(file, "r")
    except (OSError, ValueError) as error:
        raise UserError(
            f"no usable soft masks of {clip.name} at {file} ({error})",
            "masks of every clip of the run",
            f"remove {folder.parent} and run the same command again",
        ) from error
    if len(masks) != len(clip.frames):
        raise UserError(
            f"{file} has masks of {len(masks)} frames",
            f"the clip's {len(clip.frames)} frames",
            f"remove {folder.parent} and run the same command again",
        )
    return masks


def read_png(file: Path) -> Bool[np.ndarray, "h w"]:
    """Read a mask that the predict stage wrote.

    Raises:
        UserError: If it is not there or cannot be read.
    """
    try:
        with Image.open(file) as image:
            return np.asarray(image) > 0
    except OSError as error:
        raise UserError(
            f"mask {file} cannot be read ({error})",
            "the PNG that the predict stage wrote",
            f"remove {file.parents[2]} and run the same command again",
        ) from error


def path(folder: Path, clip: Clip) -> Path:
    """Return where a clip's soft masks lie."""
    return folder / f"{clip.name}.npy"


def _write(folder: Path, clip: Clip, predictor: Predictor) -> Iterator[None]:
    """Write one clip aside, frame by frame, then rename."""
    file = path(folder, clip)
    aside = file.with_suffix(".aside")
    out: np.memmap | None = None
    frames = (clip.read(t) for t in range(len(clip.frames)))
    for t, soft in enumerate(predictor(frames)):
        if out is None:
            shape = (len(clip.frames), *soft.shape)
            out = np.lib.format.open_memmap(
                aside, mode="w+", dtype=np.float16, shape=shape
            )
        out[t] = soft
        yield
    if out is not None:
        out.flush()
        del out
        os.replace(aside, file)
