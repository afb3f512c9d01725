"""Flow in other programs' files: `.flo`, `.npy`, `.npz` and KITTI's 16-bit PNG.

All give (h, w, 2) float32, (dx, dy) in pixels of their own grid, NaN where the file
says the flow is unknown.
"""

import zipfile
from pathlib import Path

import cv2
import numpy as np
from jaxtyping import Float

from imas_jax import errors, files

SUFFIXES = (".flo", ".npy", ".npz", ".png")
FLO_MAGIC = 202021.25  # Middlebury: float32 that reads "PIEH"
FLO_UNKNOWN = 1e9
KITTI_ZERO, KITTI_STEPS = 2**15, 64.0  # value = (dx * 64) + 2^15


def read(path: Path) -> Float[np.ndarray, "h w 2"]:
    """Read one flow file of any supported format.

    Raises:
        UserError: If it is missing, truncated, or holds something else.
    """
    readers = {".flo": _read_flo, ".npy": _read_npy, ".npz": _read_npz}
    try:
        return readers.get(path.suffix.lower(), _read_kitti)(path)
    except (OSError, EOFError, ValueError, KeyError, zipfile.BadZipFile) as error:
        raise errors.UserError(
            f"{path} cannot be read as flow ({error})",
            "a Middlebury .flo, a .npy or .npz of (h, w, 2) or (2, h, w), or a KITTI "
            "16-bit .png",
            "write or copy the file again",
        ) from error


def size(path: Path) -> tuple[int, int]:
    """Return the (h, w) of a flow file, from its header where that is possible.

    Raises:
        UserError: As `read`; also when a `.flo` is shorter than its header says.
    """
    try:
        if path.suffix.lower() == ".flo":
            return _flo_size(path)
        if path.suffix.lower() == ".npy":
            return _grid(files.read_npy(path, "r").shape)
    except (OSError, EOFError, ValueError) as error:
        raise errors.UserError(
            f"{path} cannot be read as flow ({error})",
            "a complete file",
            "write or copy the file again",
        ) from error
    h, w = read(path).shape[:2]
    return h, w


def write_flo(path: Path, flow: Float[np.ndarray, "h w 2"]) -> None:
    """Write Middlebury's format; NaN becomes its "unknown"."""
    h, w = flow.shape[:2]
    known = np.where(np.isnan(flow), 10 * FLO_UNKNOWN, flow).astype("<f4")
    header = np.array([FLO_MAGIC], "<f4").tobytes() + np.array([w, h], "<i4").tobytes()
    with files.aside(path) as draft:
        draft.write_bytes(header + known.tobytes())


def _flo_size(path: Path) -> tuple[int, int]:
    with path.open("rb") as file:
        header = file.read(12)
    if len(header) < 12 or np.frombuffer(header[:4], "<f4")[0] != np.float32(FLO_MAGIC):
        raise ValueError("no .flo header")
    w, h = (int(n) for n in np.frombuffer(header[4:], "<i4"))
    expected, found = 12 + 8 * h * w, path.stat().st_size
    if found < expected:
        raise ValueError(f"truncated: {found} of {expected} bytes")
    return h, w


def _read_flo(path: Path) -> np.ndarray:
    h, w = _flo_size(path)
    values = np.fromfile(path, "<f4", count=2 * h * w, offset=12).reshape(h, w, 2)
    unknown = (np.abs(values) > FLO_UNKNOWN).any(-1, keepdims=True)
    return np.where(unknown, np.nan, values).astype(np.float32)


def _read_npy(path: Path) -> np.ndarray:
    return _channels_last(files.read_npy(path))


def _read_npz(path: Path) -> np.ndarray:
    arrays = files.read_npz(path)
    names = list(arrays)
    if "flow" not in names and len(names) != 1:
        raise ValueError(f"holds {', '.join(names)}; which is the flow?")
    return _channels_last(arrays["flow" if "flow" in names else names[0]])


def _read_kitti(path: Path) -> np.ndarray:
    # Pillow would silently cut 16-bit colour to 8 bits.
    data = np.fromfile(path, np.uint8)
    try:
        image = cv2.imdecode(data, cv2.IMREAD_UNCHANGED) if data.size else None
    except cv2.error as error:  # e.g. more pixels than it will decode
        raise ValueError(error.err) from error
    if image is None or image.dtype != np.uint16 or image.ndim != 3:
        raise ValueError("not a complete 16-bit colour PNG")
    rgb = image[..., ::-1].astype(np.float32)
    flow = (rgb[..., :2] - KITTI_ZERO) / KITTI_STEPS
    return np.where(rgb[..., 2:3] > 0, flow, np.float32(np.nan))


def _channels_last(array: np.ndarray) -> np.ndarray:
    array = array.reshape(array.shape[array.ndim - 3 :]) if array.ndim == 4 else array
    _grid(array.shape)
    if array.dtype.kind not in "fiu":
        raise ValueError(f"{array.dtype} is no number of pixels")
    if array.shape[-1] != 2:
        array = np.moveaxis(array, 0, -1)
    return np.ascontiguousarray(array, np.float32)


def _grid(shape: tuple[int, ...]) -> tuple[int, int]:
    shape = shape[1:] if len(shape) == 4 and shape[0] == 1 else shape
    if len(shape) == 3 and shape[-1] == 2:
        return shape[0], shape[1]
    if len(shape) == 3 and shape[0] == 2:
        return shape[1], shape[2]
    raise ValueError(f"an array of shape {shape} is no flow")
