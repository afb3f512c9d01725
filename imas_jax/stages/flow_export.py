"""Flow for other programs: the stored fields as `.flo` or as colour pictures.

MotionGrouping's layout, which OCLR shares and `data/imported_flow.py` reads back:
`Flows_gap1/<clip>/<t>.flo` and `Flows_gap-1/<clip>/<t+1>.flo`, pictures under
`FlowImages_gap1/`. Fields are resized to the frames' size (they are stored at half).
"""

import os
from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np
from jaxtyping import Float
from ml_collections import ConfigDict

from imas_jax.data import clips as clips_lib
from imas_jax.flow import files, formats
from imas_jax.report import drawing

FOLDERS = {"flo": ("Flows_gap{}", ".flo"), "color": ("FlowImages_gap{}", ".png")}


def export(
    flow: ConfigDict, source: files.FlowFolder, clips: Sequence[clips_lib.Clip]
) -> Path:
    """Write every field that is not there yet; return the folder.

    Raises:
        UserError: If a field is missing.
    """
    root = source.root / "export" / source.digest
    for gap in flow.gaps:
        for pair in clips_lib.pairs(clips, gap):
            clip = clips[pair.clip]
            frames = clip.frames[pair.first], clip.frames[pair.second]
            both = zip(files.DIRECTIONS, (gap, -gap), frames, strict=True)
            for direction, signed, frame in both:
                folder, suffix = FOLDERS[flow.export]
                path = root / folder.format(signed) / clip.name / (frame.name + suffix)
                field = source.path(clip.name, pair.first, direction, gap)
                made = field.stat().st_mtime_ns if field.exists() else 0
                # The very same time, not a later one: another host's clock may lag.
                if path.exists() and path.stat().st_mtime_ns == made:
                    continue
                stored = source.read(clip.name, pair.first, direction, gap).flow
                _write(path, full_size(stored, clip.size))
                os.utime(path, ns=(made, made))
    return root


def full_size(
    flow: Float[np.ndarray, "hf wf 2"], size: tuple[int, int]
) -> Float[np.ndarray, "h w 2"]:
    """Bring a stored field back onto the frame's grid; values stay."""
    whole = flow.astype(np.float32)
    return cv2.resize(whole, size[::-1], interpolation=cv2.INTER_LINEAR)


def _write(path: Path, flow: Float[np.ndarray, "h w 2"]) -> None:
    if path.suffix == ".flo":
        formats.write_flo(path, flow)
    else:
        path.parent.mkdir(parents=True, exist_ok=True)
        drawing.write_image(path, drawing.flow_to_color(flow))
