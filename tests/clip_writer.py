"""Writes small clips for tests: a textured background and a square that moves."""

import struct
import zlib
from pathlib import Path

import cv2
import numpy as np
from ml_collections import ConfigDict

from configs import davis


def texture(size: tuple[int, int], seed: int = 0) -> np.ndarray:
    """Return smooth random RGB, rich enough for flow."""
    noise = np.random.default_rng(seed).uniform(0, 255, (size[0], size[1], 3))
    smooth = cv2.GaussianBlur(noise, (0, 0), 2.0)
    smooth = (smooth - smooth.min()) / np.ptp(smooth)
    return (smooth * 255).astype(np.uint8)


def moving_frames(
    count: int,
    size: tuple[int, int] = (64, 96),
    pan: int = 0,
    step: int = 3,
    side: int = 20,
) -> list[np.ndarray]:
    """Return frames in which a square moves `step` px right over a panning scene."""
    h, w = size
    scene = texture((h, w + pan * count), seed=1)
    square = texture((side, side), seed=2)
    frames = []
    for t in range(count):
        frame = scene[:, pan * t : pan * t + w].copy()
        left = 10 + step * t
        frame[20 : 20 + side, left : left + side] = square[:, : max(w - left, 0)]
        frames.append(frame)
    return frames


def save(path: Path, image: np.ndarray) -> Path:
    """Write one RGB, grey or RGBA image."""
    path.parent.mkdir(parents=True, exist_ok=True)
    order = {3: cv2.COLOR_RGB2BGR, 4: cv2.COLOR_RGBA2BGRA}
    if image.ndim == 3:
        image = cv2.cvtColor(image, order[image.shape[-1]])
    good, data = cv2.imencode(path.suffix, image)
    assert good
    path.write_bytes(data.tobytes())
    return path


def write_clip(folder: Path, count: int = 4, suffix: str = ".png", **kw) -> list[Path]:
    """Write `moving_frames` as 00000.png and on."""
    frames = moving_frames(count, **kw)
    return [save(folder / f"{t:05d}{suffix}", f) for t, f in enumerate(frames)]


def config(root: Path | str, layout: str = "folders", **data) -> ConfigDict:
    """Return the DAVIS recipe, pointed at `root`."""
    made = davis.get_config()
    made.data.update({"root": str(root), "layout": layout, **data})
    return made


def damage_inside(path: Path, length: int = 4096) -> None:
    """Overwrite the middle of a file with other bytes, none of them a JPEG's marker."""
    data = bytearray(path.read_bytes())
    other = np.random.default_rng(0).integers(0, 255, length, dtype=np.uint8)
    start = (len(data) - length) // 2
    data[start : start + length] = other.tobytes()
    path.write_bytes(bytes(data))


def claiming_png(size: tuple[int, int], bits: int = 8) -> bytes:
    """Return a sound RGB PNG header of `size` with next to nothing behind it."""
    head = struct.pack(">IIBBBBB", size[1], size[0], bits, 2, 0, 0, 0)
    chunks = [(b"IHDR", head), (b"IDAT", zlib.compress(bytes(64))), (b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(data))
        + kind
        + data
        + struct.pack(">I", zlib.crc32(kind + data))
        for kind, data in chunks
    )
