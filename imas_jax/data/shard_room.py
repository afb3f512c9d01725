"""How much disk the shards of clips want, and what to say when there is too little."""

import errno
import os
import shutil
from pathlib import Path

from imas_jax import errors
from imas_jax.data.training_set import TrainingSet

DISK_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


def clip_bytes(training_set: TrainingSet, clip: int) -> int:
    """Estimate a clip's shards: flow as stored, frames as their files, or as PNG."""
    record = training_set.clips[clip]
    h, w = record.size
    png = h * w * 2  # measured on DAVIS: 1.4 to 2 bytes a pixel
    sizes = [
        max(frame.path.stat().st_size, 0)
        if frame.path is not None and frame.path.suffix.lower() in (".jpg", ".jpeg")
        else png
        for frame in record.frames
    ]
    indices = training_set.indices_of_clip[clip]
    pairs = [training_set.pairs[i] for i in indices]
    flow = training_set.flow_of(indices[0]).nbytes
    return sum(sizes[p.first] + sizes[p.second] + flow for p in pairs)


def check(training_set: TrainingSet, todo: list[int], folder: Path) -> None:
    """Refuse before the work what cannot end well."""
    folder.mkdir(parents=True, exist_ok=True)
    needed = sum(clip_bytes(training_set, clip) for clip in todo)
    free = shutil.disk_usage(folder).free
    if needed > free:
        raise errors.UserError(
            f"{free / 1e6:.0f} MB free at {folder}",
            f"{needed / 1e6:.0f} MB for the shards of {len(todo)} clip(s)",
            "make room, set --config.workdir to a larger disk, or set "
            "--config.data.source=memory, which needs no shards",
        )


def explain(error: Exception, folder: Path, left: int) -> errors.UserError:
    """Turn a failed write into what to do; other errors come back out as they are."""
    # ArrayRecord's writer raises RuntimeError with the system's words.
    full = any(os.strerror(number) in str(error) for number in DISK_FULL)
    if not full and not isinstance(error, OSError):
        raise error
    return errors.UserError(
        f"writing shards to {folder} failed: {error}",
        f"a writable disk with {left / 1e6:.0f} MB free for the clips still to do",
        "make room or set --config.workdir to another disk, then run the same "
        "command: finished clips are kept",
    )
