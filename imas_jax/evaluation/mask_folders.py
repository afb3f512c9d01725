"""Reads masks that any method left in a folder.

Two layouts: `<sequence>/<frame>.png` (the root may also be one sequence's folder), and
the authors' flat `pred_seg_<sequence>_<frame>_<step>.png`. Four encodings: label
numbers (palette PNG, or small grey numbers), 0 and 255, and soft masks in 8 or 16 bits.
Frames are found by name, then by number. Nothing here reads annotations.
"""

import dataclasses
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Literal

import cv2
import numpy as np
from absl import logging
from jaxtyping import Bool
from PIL import Image

from imas_jax import errors
from imas_jax.data import images

Encoding = Literal["labels", "binary", "soft"]

SUFFIXES = (".png", ".bmp", ".tif", ".tiff")
SAMPLES = 5  # files of each sequence that are looked at to tell the encoding
MOST_LABELS = 20  # grey numbers up to here, and no others, are labels
_FLAT = re.compile(r"pred_seg_(?P<name>.+)_(?P<frame>\d+)_(?P<step>\d+)")


@dataclasses.dataclass(frozen=True)
class MaskFolder:
    """Masks of several sequences.

    Attributes:
        root: Where they lie.
        files: By sequence, then by frame name.
        encoding: What their pixels mean.
        threshold: Above it a soft mask is object.
        label: The object's number in label images; 0 unites all but background.
    """

    root: Path
    files: Mapping[str, Mapping[str, Path]]
    encoding: Encoding
    threshold: float
    label: int = 0

    def find(self, sequence: str, frame: str) -> Path | None:
        """Return a frame's file: by name, else by the number in it, else None."""
        files = self.files.get(sequence, {})
        if frame in files:
            return files[frame]
        number = _number(frame)
        same = [path for name, path in files.items() if _number(name) == number]
        return same[0] if number is not None and len(same) == 1 else None

    def missing(self, expected: Mapping[str, Sequence[str]]) -> dict[str, list[str]]:
        """Return the expected frames, by sequence, that have no mask."""
        gone = {
            name: [frame for frame in frames if self.find(name, frame) is None]
            for name, frames in expected.items()
        }
        return {name: frames for name, frames in gone.items() if frames}

    def read(
        self, sequence: str, frame: str, size: tuple[int, int]
    ) -> Bool[np.ndarray, "h w"]:
        """Read one mask at the size of its annotation.

        Another size is resized: labels and 0/255 by nearest neighbour, soft masks
        bilinearly before the threshold.

        Raises:
            UserError: If the file is missing or unreadable, or holds values that
                contradict the folder's encoding.
        """
        path = self.find(sequence, frame)
        if path is None:
            raise errors.UserError(
                f"no mask of {sequence}, frame {frame}, in {self.root}",
                f"{sequence}/{frame}.png or pred_seg_{sequence}_{frame}_<step>.png",
                "add the mask, or accept missing frames with evaluate.partial=True",
            )
        values = read_values(path)
        if self.encoding == "soft":
            return _resize(values, size, cv2.INTER_LINEAR) > self.threshold
        if self.encoding == "binary":
            self._check_binary(path, values)
            mask = values > 0.5
        else:
            labels = np.rint(values * 255).astype(int)
            mask = labels == self.label if self.label else labels > 0
        nearest = _resize(mask.astype(np.float32), size, cv2.INTER_NEAREST_EXACT)
        return nearest > 0.5

    def stored_size(self, sequence: str, frame: str) -> tuple[int, int]:
        """Return the (h, w) of a mask's file.

        Raises:
            KeyError: If there is none.
        """
        path = self.find(sequence, frame)
        if path is None:
            raise KeyError(f"{sequence}/{frame}")
        with Image.open(path) as image:
            return image.size[1], image.size[0]

    def _check_binary(self, path: Path, values: np.ndarray) -> None:
        if not np.isin(values, (0.0, 1.0)).all():
            raise errors.UserError(
                f"{path} holds values between 0 and 255",
                "only 0 and 255, as in the files looked at first",
                "say what the masks are with evaluate.encoding=soft or labels",
            )


def open_masks(
    root: Path,
    encoding: Literal["auto", "labels", "binary", "soft"] = "auto",
    threshold: float = 0.5,
    label: int = 0,
) -> MaskFolder:
    """Find the masks below a folder, and tell what their pixels mean.

    Args:
        root: The folder.
        encoding: "auto" looks at a few files of every sequence and says what it found.
        threshold: For soft masks.
        label: The object's number in label images; 0 unites all objects.

    Raises:
        UserError: If there are no masks, files are unreadable, or the label is in none
            of the files looked at.
    """
    root = Path(root)
    files = _find_nested(root) or _find_flat(root) or _find_bare(root)
    if not files:
        raise errors.UserError(
            f"no masks in {root}" + ("" if root.is_dir() else " (no such folder)"),
            "<sequence>/<frame>.png, or pred_seg_<sequence>_<frame>_<step>.png",
            "give the folder that holds one folder a sequence, or one sequence's",
        )
    samples = [path for frames in files.values() for path in _sample(frames)]
    if encoding == "auto":
        encoding = _tell_encoding(samples)
        logging.info(
            "masks in %s: %d sequences, read as %s", root, len(files), encoding
        )
    if encoding == "labels" and label:
        _check_label(root, samples, label)
    return MaskFolder(root, files, encoding, threshold, label)


def same_shape(mask: tuple[int, ...], frame: tuple[int, ...]) -> bool:
    """Tell whether a mask's (h, w) is its frame's, on whatever grid."""
    h, w = mask
    # A coarser grid may have rounded either side by one pixel.
    return abs(h * frame[1] / (w * frame[0]) - 1) <= 1 / min(h, w)


def read_values(path: Path) -> np.ndarray:
    """Read an image as `(h, w)` float32: label numbers / 255, or grey in [0, 1].

    Raises:
        UserError: If it cannot be read, or is in colours.
    """
    try:
        with images.opened(path) as image:
            if image.mode == "P":
                return np.asarray(image).astype(np.float32) / 255
            if image.mode.startswith("I"):
                return np.asarray(image).astype(np.float32) / 65535
            if image.mode == "F":
                return np.asarray(image)
            grey = image.convert("L")
            coloured = image.mode in ("RGB", "RGBA") and _is_coloured(image)
    except images.UNREADABLE as error:
        raise errors.UserError(
            f"mask {path} cannot be read: {error}",
            "a complete image file",
            "write it again",
        ) from error
    if coloured:
        raise errors.UserError(
            f"mask {path} is in colours, whose grey levels mean nothing",
            "label numbers (a palette), 0 and 255, or a soft mask in grey",
            "store masks in one of these ways",
        )
    return np.asarray(grey).astype(np.float32) / 255


def _is_coloured(image: Image.Image) -> bool:
    channels = np.asarray(image)[..., :3]
    return bool((channels != channels[..., :1]).any())


def _find_nested(root: Path) -> dict[str, dict[str, Path]]:
    found = {}
    for folder in sorted(path for path in root.glob("*") if path.is_dir()):
        files = {p.stem: p for p in sorted(folder.iterdir()) if _is_mask(p)}
        if files:
            found[folder.name] = files
    return found


def _find_flat(root: Path) -> dict[str, dict[str, Path]]:
    """Collect the authors' flat names; of several steps the last one counts."""
    found: dict[str, dict[str, tuple[int, Path]]] = {}
    steps = set()
    for path in sorted(root.glob("pred_seg_*")):
        match = _FLAT.fullmatch(path.stem)
        if match is None or not _is_mask(path):
            continue
        step = int(match["step"])
        steps.add(step)
        frames = found.setdefault(match["name"], {})
        if step >= frames.get(match["frame"], (-1, path))[0]:
            frames[match["frame"]] = (step, path)
    if len(steps) > 1:
        logging.warning(
            "%s has masks of steps %s: the last counts", root, sorted(steps)
        )
    return {
        name: {frame: path for frame, (_, path) in frames.items()}
        for name, frames in found.items()
    }


def _find_bare(root: Path) -> dict[str, dict[str, Path]]:
    files = {p.stem: p for p in sorted(root.glob("*")) if _is_mask(p)}
    return {root.resolve().name: files} if files else {}


def _is_mask(path: Path) -> bool:
    return path.suffix.lower() in SUFFIXES and not path.name.startswith(".")


def _sample(frames: Mapping[str, Path]) -> list[Path]:
    paths = list(frames.values())
    chosen = np.linspace(0, len(paths) - 1, min(SAMPLES, len(paths))).round()
    return [paths[int(index)] for index in chosen]


def _tell_encoding(samples: Sequence[Path]) -> Encoding:
    """Labels if files have palettes; soft if grey ones hold levels between the ends."""
    palettes, small, between = 0, 0, 0
    for path in samples:
        levels = np.unique(read_values(path))
        if _has_palette(path):
            palettes += 1
        elif len(levels) > 1 and levels[-1] * 255 <= MOST_LABELS:
            # Labels, or a soft mask that found nothing: the other files tell.
            small += 1
        elif not np.isin(levels, (0.0, 1.0)).all():
            between += 1
    if palettes and between:
        raise errors.UserError(
            f"{palettes} mask(s) have a palette, {between} look soft, among "
            f"{len(samples)} such as {samples[0]}",
            "one encoding in a folder",
            "say which with evaluate.encoding=soft or labels",
        )
    if between:
        return "soft"
    return "labels" if palettes or small else "binary"


def _has_palette(path: Path) -> bool:
    with Image.open(path) as image:
        return image.mode == "P"


def _check_label(root: Path, samples: Sequence[Path], label: int) -> None:
    found: set[int] = set()
    for path in samples:
        found |= set(np.rint(np.unique(read_values(path)) * 255).astype(int).tolist())
    if label not in found:
        raise errors.UserError(
            f"label {label} is in none of {len(samples)} masks looked at in {root}",
            f"one of the labels there: {sorted(found)}",
            "correct evaluate.label, or 0 for all objects",
        )


def _number(name: str) -> int | None:
    """Return the last number in a frame's name."""
    digits = re.findall(r"\d+", name)
    return int(digits[-1]) if digits else None


def _resize(values: np.ndarray, size: tuple[int, int], how: int) -> np.ndarray:
    if values.shape == tuple(size):
        return values
    return cv2.resize(values, tuple(size)[::-1], interpolation=how)
