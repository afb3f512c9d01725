"""Scores the masks of one clip, given as arrays or as a folder of files.

For people who hold masks in their hands; data sets are scored by `external.py` and the
evaluate stage. The numbers are the same.
"""

import dataclasses
import functools
import itertools
import os
import sys
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
from jaxtyping import Bool

from imas_jax.data import annotations, layouts
from imas_jax.data.annotations import Truth
from imas_jax.errors import UserError
from imas_jax.evaluation import mask_folders, protocol
from imas_jax.evaluation.protocol import FramePair, SequenceScore

Mask: TypeAlias = Bool[np.ndarray, "h w"]
Folder: TypeAlias = str | os.PathLike[str]
Reader: TypeAlias = Callable[[tuple[int, int]], Mask]  # (h, w) -> a mask of that size
SUFFIXES = (".png", ".bmp")  # of annotations


class End:
    """Stands behind the last frame."""


END = End()


@dataclasses.dataclass(frozen=True)
class Score:
    """What a clip's masks score; numbers are in [0, 1].

    Attributes:
        protocol: Which frames are averaged: "frame_mean" (the paper's) and
            "sequence_mean", one and the same for one clip, all annotated frames;
            "official" (DAVIS-2016's) all but the clip's first and last.
        jaccard: J, region overlap, mean over these frames.
        boundary: F, boundary accuracy, mean over these frames.
        frames: How many these are.
        by_frame: J and F of every annotated frame.
    """

    protocol: str
    jaccard: float
    boundary: float
    frames: int
    by_frame: SequenceScore


def score(
    masks: Iterable[Mask] | Folder,
    truth: Iterable[Mask | None] | Folder,
    which: protocol.Protocol = "frame_mean",
) -> Score:
    """Score masks frame by frame; one pair is held at a time.

    Args:
        masks: Of a whole clip: bool arrays in order, or a folder of mask files.
        truth: Bool arrays, None for frames that are not annotated; or a folder of
            files, in which any object is object and DAVIS's void does not count.
        which: The protocol.

    Two folders are matched by frame name, else both sides have as many frames.

    Raises:
        UserError: If there is no such protocol, nothing is annotated, frames have no
            mask, or masks are of another size or no bool arrays.
    """
    if which not in protocol.PROTOCOLS:
        raise UserError(
            f"protocol {which!r}",
            f"one of {', '.join(protocol.PROTOCOLS)}",
            "frame_mean is the paper's, official is DAVIS-2016's",
        )
    if isinstance(masks, str | os.PathLike) and isinstance(truth, str | os.PathLike):
        told = _scored(*_matched(Path(masks), Path(truth)))
    else:
        told = _scored(_masks(masks), _truths(truth))
    summary = protocol.sequence_statistics(told, which)
    if not summary.frames:
        raise UserError(
            f"{len(told.frames)} annotated frame(s), none of which {which} averages",
            "annotations of some frames",
            "give the annotations of this clip, or another protocol",
        )
    means = summary.jaccard.mean, summary.boundary.mean
    return Score(which, *means, summary.frames, told)


def _scored(masks: Iterable[Reader], truths: Iterable[Truth | None]) -> SequenceScore:
    """Score frames that come in order, on both sides as many."""
    frames = 0

    def pairs() -> Iterator[FramePair]:
        nonlocal frames
        for read, truth in itertools.zip_longest(masks, truths, fillvalue=END):
            if isinstance(read, End) or isinstance(truth, End):
                more = "annotations" if isinstance(read, End) else "masks"
                raise UserError(
                    f"more {more} than the other side's {frames}",
                    "a mask and an annotation of every frame",
                    "give None for frames without annotation, or two folders whose "
                    "files have the frames' names",
                )
            if truth is not None:
                h, w = truth.foreground.shape
                mask = read((h, w))
                yield FramePair(frames, mask, truth.foreground, truth.void)
            frames += 1

    told = protocol.score_sequence("masks", sys.maxsize, pairs())
    return dataclasses.replace(told, length=frames)


def _matched(
    masks: Path, truth: Path
) -> tuple[Iterator[Reader], Iterator[Truth | None]]:
    """Match two folders' files by name, in the order of the masks."""
    folder, files = _mask_folder(masks), _truth_files(truth)
    names = _names(folder)
    lost = [name for name in files if name not in names]
    if lost:
        some = ", ".join(lost[:5]) + (", ..." if len(lost) > 5 else "")
        raise UserError(
            f"{len(lost)} of {len(files)} annotations in {truth} have no mask of their "
            f"name in {masks}: {some}",
            "a mask of every annotated frame",
            "give the folders of one clip, with one name for a frame in both",
        )
    truths = (_read(files[name]) if name in files else None for name in names)
    return _readers(folder), truths


def _masks(given: Iterable[Mask] | Folder) -> Iterator[Reader]:
    if isinstance(given, str | os.PathLike):
        return _readers(_mask_folder(Path(given)))

    def readers() -> Iterator[Reader]:
        for t, mask in enumerate(given):
            yield functools.partial(_same, _checked(mask, f"mask {t}"))

    return readers()


def _same(mask: Mask, size: tuple[int, int]) -> Mask:
    """Return an array as it is; whoever scores it compares its size."""
    del size
    return mask


def _truths(given: Iterable[Mask | None] | Folder) -> Iterator[Truth | None]:
    if isinstance(given, str | os.PathLike):
        return map(_read, _truth_files(Path(given)).values())
    return (
        None if one is None else Truth(_checked(one, f"annotation {t}"), None)
        for t, one in enumerate(given)
    )


def _mask_folder(path: Path) -> mask_folders.MaskFolder:
    folder = mask_folders.open_masks(path)
    if len(folder.files) > 1:
        raise UserError(
            f"{path} holds masks of {len(folder.files)} clips",
            "the masks of one",
            f"give one of its folders, e.g. {path / next(iter(folder.files))}; data "
            "sets are scored by `imas-jax --config=evaluate`",
        )
    return folder


def _names(folder: mask_folders.MaskFolder) -> list[str]:
    (files,) = folder.files.values()
    return sorted(files, key=layouts.natural_key)


def _readers(folder: mask_folders.MaskFolder) -> Iterator[Reader]:
    (sequence,) = folder.files
    for name in _names(folder):
        yield functools.partial(folder.read, sequence, name)


def _truth_files(path: Path) -> dict[str, Path]:
    found = [p for p in _listed(path) if p.suffix.lower() in SUFFIXES]
    named = {p.stem: p for p in found if not p.name.startswith(".")}
    if not named:
        raise UserError(
            f"no annotation in {path}",
            f"a folder with a file a frame ({', '.join(SUFFIXES)})",
            "give the folder of this clip's annotations",
        )
    return {name: named[name] for name in sorted(named, key=layouts.natural_key)}


def _listed(path: Path) -> list[Path]:
    return list(path.iterdir()) if path.is_dir() else []


def _read(path: Path) -> Truth:
    return annotations.read_truth(annotations.Annotation((path,)))


def _checked(mask: Any, what: str) -> Mask:
    """Refuse what is no bool mask, and say how it becomes one."""
    found = np.asarray(mask)
    if found.dtype == np.bool_ and found.ndim == 2:
        return found
    fixes = {"f": "cut a soft mask: mask > 0.5", "u": "mask > 0", "i": "mask > 0"}
    fix = fixes.get(found.dtype.kind, "give NumPy arrays of True and False")
    if found.ndim != 2:
        fix = "give one array a frame, without a channel axis: mask[..., 0]"
    raise UserError(
        f"{what} is {found.dtype} of shape {found.shape}", "a bool array (h, w)", fix
    )
