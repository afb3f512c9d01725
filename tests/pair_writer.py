"""Writes small training sets for tests: clips, and flow that names its pair."""

from pathlib import Path

import clip_writer
import cv2
import numpy as np
from ml_collections import ConfigDict

from imas_jax.data import clips, training_set
from imas_jax.flow import files

SIZE = (48, 64)
GRID = (24, 32)
CAMERA = np.array([[1.0, 0.0, 2.0], [0.0, 1.0, -1.0], [0.0, 0.0, 1.0]])


def write_training_set(
    root: Path, counts: dict[str, int] | None = None, **data
) -> tuple[ConfigDict, training_set.TrainingSet]:
    """Write clips (JPEG for "dog", else PNG) below `root` with flow beside them."""
    for name, count in (counts or {"cat": 4, "dog": 5}).items():
        suffix = ".jpg" if name == "dog" else ".png"
        clip_writer.write_clip(root / "frames" / name, count, suffix, size=SIZE)
    config = clip_writer.config(root / "frames", **data)
    config.discover.batch_size = 4
    config.refine.batch_size = 2
    found = clips.find_clips(config.data)
    folder = files.FlowFolder(root / "flow", "test")
    for pair in clips.pairs(found):
        write_flow(folder, found[pair.clip], pair)
    return config, training_set.find(config, found, folder)


def write_flow(
    folder: files.FlowFolder,
    clip: clips.Clip,
    pair: clips.Pair,
    grid: tuple[int, int] = GRID,
) -> None:
    """Write both directions of a pair."""
    for direction in files.DIRECTIONS:
        meta = files.FlowMeta(
            clip.name, pair.first, direction, 1, clip.size, "test", folder.digest
        )
        path = folder.path(clip.name, pair.first, direction)
        flow = flow_of(pair, direction, grid)
        files.write_flow(path, flow, meta, CAMERA)


def flow_of(
    pair: clips.Pair, direction: files.Direction, grid: tuple[int, int] = GRID
) -> np.ndarray:
    """Make flow no two pairs share; float16 holds it exactly."""
    seed = (pair.clip, pair.first, files.DIRECTIONS.index(direction))
    noise = np.random.default_rng(seed).normal(size=(*grid, 2))
    smooth = cv2.GaussianBlur(noise, (0, 0), 2.0) * 40
    return smooth.astype(np.float16).astype(np.float32)
