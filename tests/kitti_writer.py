"""Writes KITTI's 16-bit flow PNG, which this project only reads."""

from pathlib import Path

import cv2
import numpy as np


def write(path: Path, flow: np.ndarray) -> None:
    """Write KITTI's 16-bit PNG: steps of 1/64 px, range +-512 px, NaN is invalid."""
    valid = np.isfinite(flow).all(-1)
    steps = np.rint(np.nan_to_num(flow) * 64) + 2**15
    rgb = np.dstack([np.clip(steps, 0, 2**16 - 1), valid]).astype(np.uint16)
    good, data = cv2.imencode(".png", rgb[..., ::-1])
    assert good
    with path.open("wb") as file:
        file.write(data.tobytes())
