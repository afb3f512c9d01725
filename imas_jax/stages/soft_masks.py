"""Soft masks of a run on disk: one `.npy` a clip, written and read frame by frame.

A clip's file is float16 `(t, hm, wm, c)` and is complete when it has its name. Neither
side maps it: mapped pages count as memory of the process.
"""

import copy
import itertools
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path

import numpy as np
from jaxtyping import Bool, Float, Float16
from PIL import Image

from imas_jax import files
from imas_jax.data.clips import Clip
from imas_jax.errors import UserError
from imas_jax.stages import shares

# Yields clips' masks, one a frame, in order.
MasksOf = Callable[[Sequence[Clip]], Iterator[Float[np.ndarray, "hm wm c"]]]


class SoftMasks:
    """Soft masks of a clip; each is read from the file when it is asked for.

    Args:
        file: Float16 `(t, hm, wm, c)` in NumPy's format.

    Raises:
        ValueError: If it is cut short or no such file.
    """

    def __init__(self, file: Path):
        mapped = files.read_npy(file, "r")
        assert isinstance(mapped, np.memmap)
        self.shape: tuple[int, ...] = mapped.shape
        self._file, self._start, self._dtype = file, mapped.offset, mapped.dtype

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, index: int) -> Float16[np.ndarray, "hm wm c"]:
        if not 0 <= index < len(self):
            raise IndexError(index)
        count = int(np.prod(self.shape[1:]))
        start = self._start + index * count * self._dtype.itemsize
        values = np.fromfile(self._file, self._dtype, count, offset=start)
        return values.reshape(self.shape[1:])

    def rest(self, first: int) -> "SoftMasks":
        """Return the masks from frame `first` on."""
        part = copy.copy(self)
        row = int(np.prod(self.shape[1:])) * self._dtype.itemsize
        part._start = self._start + first * row
        part.shape = (len(self) - first, *self.shape[1:])
        return part

    def __iter__(self) -> Iterator[Float16[np.ndarray, "hm wm c"]]:
        return (self[index] for index in range(len(self)))


def write_all(
    folder: Path,
    clips: Sequence[Clip],
    masks_of: MasksOf,
    what: str = "masks",
    share: shares.Share = shares.ALONE,
) -> None:
    """Write the masks of the clips that have no file yet.

    Args:
        folder: Gets a file a clip.
        clips: The clips, this process's where several share them.
        masks_of: Yields clips' masks, one a frame, in order.
        what: Name on the progress line.
        share: Counts what all processes do.
    """
    folder.mkdir(parents=True, exist_ok=True)
    missing = [clip for clip in clips if not path(folder, clip).is_file()]
    total = sum(len(clip.frames) for clip in missing)
    masks = masks_of(missing)
    frames = (step for clip in missing for step in _write(folder, clip, masks))
    for _ in share.progress(frames, total, what, "frame"):
        pass


def predicted(
    network: Callable[[Iterable[Iterable[np.ndarray]]], Iterator[np.ndarray]],
) -> MasksOf:
    """Let a network (`Predictor.of_clips`) make the masks that `write_all` writes."""
    return lambda clips: network(
        map(clip.read, range(len(clip.frames))) for clip in clips
    )


def read(folder: Path, clip: Clip) -> SoftMasks:
    """Open one clip's soft masks.

    Raises:
        UserError: If they are not there or not of this clip.
    """
    file = path(folder, clip)
    try:
        masks = SoftMasks(file)
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


def _write(folder: Path, clip: Clip, masks: Iterator[np.ndarray]) -> Iterator[None]:
    """Write one clip's masks, the next ones, aside and frame by frame; then rename."""
    file, count = path(folder, clip), len(clip.frames)
    with files.aside(file) as draft, draft.open("wb") as out:
        for t, soft in enumerate(itertools.islice(masks, count)):
            if t == 0:
                header = {
                    "descr": np.lib.format.dtype_to_descr(np.dtype(np.float16)),
                    "fortran_order": False,
                    "shape": (count, *soft.shape),
                }
                room = count * soft.size * 2
                files.check_room(folder, room, f"the soft masks of {clip.name}")
                np.lib.format.write_array_header_1_0(out, header)
            out.write(soft.astype(np.float16).tobytes())
            yield
