"""Masks for other programs: a predicted clip in the formats that are asked for.

All of them are made from what stage predict wrote, the PNG masks and the network's soft
masks, and from the frames at the files' own size.
"""

import dataclasses
from collections.abc import Collection, Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np

from imas_jax.appearance import alignment
from imas_jax.data.clips import Clip
from imas_jax.report import exports
from imas_jax.report.shots import About, Shot
from imas_jax.runs.run import Run
from imas_jax.stages import shares, soft_masks
from imas_jax.stages.predictor import to_frame

SOFT, MASKS = "soft", "masks"  # folders of stage predict
WRITTEN = "png"  # always: evaluation and report read them, and every format here


def export(
    run: Run,
    clip: Clip,
    paths: Mapping[str, Path],
    rate: float | None = None,
) -> Iterator[None]:
    """Write a clip in several formats, a step a frame.

    Args:
        run: It has predicted the clip.
        clip: The clip.
        paths: By format, the file or folder.
        rate: Frames a second of films; None takes the clip's.

    Raises:
        UserError: As `exports.write`, and if a frame or mask cannot be read.
    """
    about = About(clip.name, len(clip.frames), clip.native_size, rate or clip.rate)
    yield from exports.write(paths, about, _shots(run, clip, exports.reads(paths)))


def export_all(
    run: Run,
    folder: Path,
    clips: Sequence[Clip],
    names: Sequence[str],
    share: shares.Share = shares.ALONE,
) -> dict[str, str]:
    """Write what is not there of all clips; return the folder of each format.

    Args:
        run: It has predicted the clips.
        folder: Gets a folder for each format but PNG masks.
        clips: The clips, this process's where several share them.
        names: Formats.
        share: Counts what all processes do.
    """
    exports.check(names)
    wanted = [name for name in names if name != WRITTEN]
    todo = {
        clip: {
            name: path
            for name in wanted
            if not (path := exports.place(folder, name, clip.name)).exists()
        }
        for clip in clips
    }
    left = [clip for clip, paths in todo.items() if paths]
    steps = (step for clip in left for step in export(run, clip, todo[clip]))
    total = sum(len(clip.frames) for clip in left)
    for _ in share.progress(steps, total, f"masks as {', '.join(wanted)}", "frame"):
        pass
    return {name: str(folder / name) for name in wanted}


def is_there(run: Run, clips: Sequence[Clip]) -> bool:
    """Tell whether a finished stage predict has all formats that are asked for."""
    folder, names = run.workdir / "predict", run.config.predict.formats
    return all(
        exports.place(folder, name, clip.name).exists()
        for name in names
        if name in exports.FORMATS and name != WRITTEN
        for clip in clips
    )


def _shots(run: Run, clip: Clip, wanted: Collection[str]) -> Iterator[Shot]:
    """Read back frame by frame what was predicted."""
    folder = run.workdir / "predict"
    masks, whole = folder / MASKS / clip.name, clip
    soft, channels = None, ()
    if "image" in wanted:
        whole = dataclasses.replace(clip, size=clip.native_size)
    if "soft" in wanted:
        soft = soft_masks.read(folder / SOFT, clip)
        channels = tuple(run.values("align")["channels"])
    for t, frame in enumerate(clip.frames):
        likely = None
        if soft is not None:
            every = to_frame(soft[t].astype(np.float32), clip.native_size)
            likely = alignment.object_probability(every, channels)
        yield Shot(
            frame.name,
            frame.path.name if frame.path else f"{frame.name}.png",
            soft_masks.read_png(masks / f"{frame.name}.png"),
            whole.read(t) if "image" in wanted else None,
            likely,
        )
