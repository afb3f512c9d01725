"""The only reader of ground truth. Evaluation and reports may import it, nothing else.

Every object of a frame is merged into one foreground mask (FACTS.md):

- DAVIS16, YouTube-VOS: grey above 127, or any object number of a palette image;
- SegTrackv2: the union over objects of grey above 127 (edges are anti-aliased);
- FBMS59: rules at `_fbms_paths`;
- clips of one's own have no annotations.

Where files lie and which of these rules holds is in `datasets.py`.

Masks of rendered clips are not annotations: they are known from how the frames were
made (`demo/render.py`, `rendered/film.py`), and nobody looked at a video to draw them.
The motion evidence learns from such masks alone, and reads none of the files above.

Number 255 of a palette image is void, as in the VOC and DAVIS palettes: neither object
nor background, and not scored. (Where the palette shows it white it is the object: a
mask of 0 and 255 that was stored with a palette.)
"""

import dataclasses
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import numpy as np
from absl import logging
from jaxtyping import Bool
from ml_collections import ConfigDict

from imas_jax import errors
from imas_jax.data import clips as clips_lib
from imas_jax.data import images, layouts
from imas_jax.data.datasets import DATASETS, GroundTruth

VOID = 255  # of palette images
FBMS_WHITE = 0.99  # in colour annotations white is background


@dataclasses.dataclass(frozen=True)
class Annotation:
    """Where one frame's ground truth lies and how it is read.

    Attributes:
        paths: Files whose foregrounds are united.
        rule: "grey" (above 127, palette numbers above 0), "fbms" (grey above
            `threshold`) or "fbms_colour" (the same, white is background).
        threshold: In [0, 1], for the fbms rules.
    """

    paths: tuple[Path, ...]
    rule: Literal["grey", "fbms", "fbms_colour"] = "grey"
    threshold: float = 0.5


@dataclasses.dataclass(frozen=True)
class Truth:
    """One frame's ground truth.

    Attributes:
        foreground: Pixels of any object.
        void: Pixels that are not scored, or None where there are none.
    """

    foreground: Bool[np.ndarray, "h w"]
    void: Bool[np.ndarray, "h w"] | None


# Annotations by frame index, and files that annotate no frame of the clip.
Matched = tuple[dict[int, Annotation], list[Path]]


def annotated_frames(data: ConfigDict, clip: clips_lib.Clip) -> dict[int, Annotation]:
    """Return the annotations of a clip by frame index; {} where there are none."""
    return _match(data, clip)[0]


def check(data: ConfigDict, clips: Sequence[clips_lib.Clip]) -> None:
    """Find what is wrong with ground truth before anything is scored.

    Every annotation is read. What does not fit is not scored, and told in the log:
    annotations without frame, and frames without annotation where the dataset annotates
    all of them. Clips without annotations are fine where no clip has any.

    Raises:
        UserError: One list: unreadable files, objects or (DAVIS) masks of another size
            than their frame.
    """
    matched = [_match(data, clip) for clip in clips]
    if not any(frames for frames, _ in matched):
        return
    form, problems = _form(data), errors.ProblemList()
    assert form is not None  # there are annotations
    for clip, (frames, lonely) in zip(clips, matched, strict=True):
        bare = [f.name for f in clip.frames if f.index not in frames]
        if form.complete:
            _tell(clip.name, bare, "frame(s) without annotation")
        _tell(clip.name, [p.name for p in lonely], "annotation(s) without frame")
        for index, annotation in frames.items():
            try:
                shape = read_annotation(annotation).shape
            except errors.UserError as error:
                problems.add(clip.name, error.found)
                continue
            if form.sized and shape != clip.native_size:
                where = annotation.paths[0]
                problems.add(where, f"is {shape} (h, w), frame {index} is not")
    problems.raise_if_any(
        f"annotations of {data.root}",
        "readable masks of their frames' size",
        "restore the published annotations; masks need none: --config.stage=predict",
    )


def _tell(clip: str, names: list[str], what: str) -> None:
    if names:
        some = ", ".join(names[:5]) + (", ..." if len(names) > 5 else "")
        logging.warning("%s: not scored, %d %s: %s", clip, len(names), what, some)


def read_annotation(annotation: Annotation) -> Bool[np.ndarray, "h w"]:
    """Read the foreground of one frame at the annotation's own size; void is none.

    Raises:
        UserError: If a file is unreadable, or files of one frame differ in size.
    """
    return read_truth(annotation).foreground


def read_truth(annotation: Annotation) -> Truth:
    """Read foreground and void pixels of one frame at the annotation's own size.

    Raises:
        UserError: If a file is unreadable, or files of one frame differ in size.
    """
    masks, voids = zip(
        *(_read_mask(path, annotation) for path in annotation.paths), strict=True
    )
    if len({m.shape for m in masks}) > 1:
        raise errors.UserError(
            f"objects of one frame differ in size: {list(map(str, annotation.paths))}",
            "one size",
            "restore the original annotation files",
        )
    foreground, void = np.logical_or.reduce(masks), np.logical_or.reduce(voids)
    return Truth(foreground, void & ~foreground if void.any() else None)


def _form(data: ConfigDict) -> GroundTruth | None:
    """Return what the ground truth of a data set looks like, if there is any."""
    dataset = DATASETS.get(layouts.resolve(data))
    return dataset.truth if dataset else None


def _match(data: ConfigDict, clip: clips_lib.Clip) -> Matched:
    """Match a clip's frames with the files of its data set."""
    form = _form(data)
    if form is None:
        return {}, []
    folder = _folder(form, data, clip)
    if form.form == "fbms":
        return _by_number(form, clip, folder)
    objects = [p for p in _files(folder) if p.is_dir()] if form.objects else []
    return _by_stem(clip, tuple(objects) or (folder,))


def _folder(form: GroundTruth, data: ConfigDict, clip: clips_lib.Clip) -> Path:
    """Return where a clip's annotations lie, or would."""
    base = Path(data.root)
    if form.within == "frames":
        first = clip.frames[0].path
        assert first is not None  # no published data set is of films
        base = first.parent
    resolution = ""
    if any("{resolution}" in folder for folder in form.folders):
        resolution = layouts.davis_resolution(data)
    folders = [
        base / folder.format(clip=clip.name, resolution=resolution)
        for folder in form.folders
    ]
    return next((path for path in folders if path.parent.is_dir()), folders[-1])


def _files(folder: Path) -> list[Path]:
    """List a folder in order; one that is not there holds nothing.

    Raises:
        UserError: If it cannot be read.
    """
    try:
        return sorted(folder.iterdir()) if folder.is_dir() else []
    except OSError as error:
        raise errors.UserError(
            f"{folder} cannot be read ({error.strerror})",
            "annotations, and the right to read them",
            "correct the permissions; masks need none: --config.stage=predict",
        ) from error


def _by_stem(clip: clips_lib.Clip, folders: tuple[Path, ...]) -> Matched:
    """Match frames and annotation files by name, over one folder an object."""
    files: dict[str, list[Path]] = {}
    for folder in folders:
        for path in _files(folder):
            if path.suffix.lower() in (".png", ".bmp") and path.name[0] != ".":
                files.setdefault(path.stem, []).append(path)
    frames = {
        frame.index: Annotation(tuple(files.pop(frame.name)))
        for frame in clip.frames
        if frame.name in files
    }
    return frames, [paths[0] for paths in files.values()]


def _by_number(form: GroundTruth, clip: clips_lib.Clip, folder: Path) -> Matched:
    """Match by the number in the file name: positions would be wrong in some shots."""
    number_of = {_number(f.name, clip.name): f.index for f in clip.frames}
    paths, rule = _fbms_paths(folder)
    threshold = form.thresholds.get(clip.name, form.threshold)
    frames: dict[int, Annotation] = {}
    lonely = []
    for path in paths:
        index = number_of.get(_number(path.stem, clip.name))
        if index is None:
            lonely.append(path)
        else:
            frames[index] = Annotation((path,), rule, threshold)
    return frames, lonely


def _fbms_paths(
    folder: Path,
) -> tuple[list[Path], Literal["fbms", "fbms_colour"]]:
    """Pick annotation files: a folder with any `.ppm` is of the colour type.

    In the colour type `.pgm` files are probability maps, and so are files with PROB in
    their name: neither is ground truth.
    """
    files = [p for p in _files(folder) if "PROB" not in p.stem]
    colour = [p for p in files if p.suffix.lower() == ".ppm"]
    if colour:
        return colour, "fbms_colour"
    return [p for p in files if p.suffix.lower() == ".pgm"], "fbms"


def _number(stem: str, clip_name: str) -> int:
    """Return the frame number of `bear01_0001_gt`, `made01_11` or `001_gt`."""
    digits = re.findall(r"\d+", stem.removeprefix(clip_name))
    return int(digits[-1]) if digits else -1


def _read_mask(path: Path, annotation: Annotation) -> tuple[np.ndarray, np.ndarray]:
    """Return one file's foreground and void."""
    try:
        with images.opened(path) as image:
            if annotation.rule == "grey" and image.mode == "P":
                numbers, last = np.asarray(image), (image.getpalette() or [])[765:768]
                void = (numbers == VOID) & (last != [255, 255, 255])
                return (numbers > 0) & ~void, void
            grey = np.asarray(image.convert("L"))
    except images.UNREADABLE as error:
        raise errors.UserError(
            f"annotation {path} cannot be read: {error}",
            "a complete image file",
            "copy it again from its source",
        ) from error
    if annotation.rule == "grey":
        return grey > 127, np.zeros_like(grey, bool)
    foreground = grey > annotation.threshold * 255
    if annotation.rule == "fbms_colour":
        foreground &= grey <= FBMS_WHITE * 255
    return foreground, np.zeros_like(grey, bool)
