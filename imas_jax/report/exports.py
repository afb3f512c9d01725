"""Masks in the files that other tools open: one table of formats, and what fills them.

Frames are pushed to the writers of all wanted formats at once and one at a time: memory
does not grow with a clip's length. A file that has its name is whole; formats of a file
a frame grow file by file. Which tool opens what, and how: docs/formats.md.
"""

import contextlib
import dataclasses
import difflib
import importlib.util
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from pathlib import Path

from imas_jax import files
from imas_jax.errors import UserError
from imas_jax.report import export_films, export_labels
from imas_jax.report.shots import About, Shot

Add = Callable[[Shot], None]
EXTRA = "formats"  # of pyproject.toml


@dataclasses.dataclass(frozen=True)
class Format:
    """One kind of file.

    Attributes:
        what: In a few words.
        opened: Lends, for a path, what adds a frame to it.
        suffix: Of the file of a clip; "" for a folder with a file a frame.
        needs: A package of the extra, or "".
        reads: What of a frame it looks at beyond the mask: "image", "soft" or "".
    """

    what: str
    opened: Callable[[Path, About], AbstractContextManager[Add]]
    suffix: str = ""
    needs: str = ""
    reads: str = ""


FORMATS: dict[str, Format] = {
    "png": Format("masks, DAVIS palette", export_labels.png),
    "soft8": Format("probabilities, grey, 8 bits", export_labels.soft8, reads="soft"),
    "soft16": Format(
        "probabilities, grey, 16 bits", export_labels.soft16, reads="soft"
    ),
    "overlay": Format(
        "the frames with the object tinted", export_films.overlay, ".mp4", reads="image"
    ),
    "webm_alpha": Format(
        "the object cut out, VP9", export_films.webm_alpha, ".webm", reads="image"
    ),
    "prores_alpha": Format(
        "the object cut out, ProRes 4444",
        export_films.prores_alpha,
        ".mov",
        reads="image",
    ),
    "gif": Format(
        "the overlay, small, a few seconds", export_films.gif, ".gif", reads="image"
    ),
    "coco": Format(
        "COCO annotations, RLE", export_labels.coco, ".json", needs="pycocotools"
    ),
    "cvat": Format("CVAT's segmentation mask 1.1", export_labels.cvat, ".zip"),
    "yolo": Format("polygons for Ultralytics YOLO", export_labels.yolo),
    "labelstudio": Format(
        "tasks with polygons for Label Studio", export_labels.labelstudio, ".json"
    ),
    "napari": Format(
        "a labels layer, TIFF", export_labels.napari, ".tif", needs="tifffile"
    ),
    "colmap": Format("masks for COLMAP: the object is left out", export_labels.colmap),
}


def check(names: Sequence[str]) -> None:
    """Refuse formats that are unknown, or whose package is not installed.

    Raises:
        UserError: With all formats, or with the extra.
    """
    for name in names:
        if name not in FORMATS:
            near = difflib.get_close_matches(name, FORMATS, n=1, cutoff=0.4)
            raise UserError(
                f"format {name!r}",
                f"among {', '.join(FORMATS)}",
                f"did you mean {near[0]}?" if near else "choose one of these",
            )
    needed = {FORMATS[name].needs for name in names} - {""}
    missing = sorted(one for one in needed if importlib.util.find_spec(one) is None)
    if missing:
        wanting = [name for name in names if FORMATS[name].needs in missing]
        raise UserError(
            f"format {', '.join(wanting)} without {', '.join(missing)}",
            f"the optional extra {EXTRA!r}",
            f"pip install 'imas_jax[{EXTRA}]', or leave the format out",
        )


def reads(names: Iterable[str]) -> set[str]:
    """Return what formats look at beyond masks: "image", "soft"."""
    return {FORMATS[name].reads for name in names} - {""}


def place(folder: Path, name: str, clip: str) -> Path:
    """Return where a clip's file, or folder of files, of a format lies."""
    return folder / name / f"{clip}{FORMATS[name].suffix}"


def destinations(to: Path, names: Sequence[str] | None, clip: str) -> dict[str, Path]:
    """Return by format where a clip goes that is to be saved at a path.

    Args:
        to: A file, whose suffix tells the format where none is named; or a folder,
            which gets `<format>/<clip>` of each.
        names: Formats; None takes the file's, or PNG masks.
        clip: The clip's name.

    Raises:
        UserError: As `check`, and if the file's kind cannot hold what is asked.
    """
    suffix = "" if to.is_dir() else to.suffix.lower()
    held = {one.suffix: name for name, one in reversed(FORMATS.items()) if one.suffix}
    if names is None and suffix:
        if suffix not in held:
            raise UserError(
                f"{to.name}, whose suffix is of no format",
                ", ".join(f"{end} ({name})" for end, name in sorted(held.items())),
                "choose one of these, name `formats`, or give a folder",
            )
        names = [held[suffix]]
    names = ["png"] if names is None else names
    check(names)
    if suffix in held:
        others = [name for name in names if FORMATS[name].suffix != suffix]
        if others or len(names) != 1:
            ends = {name: FORMATS[name].suffix or "a folder" for name in names}
            raise UserError(
                f"{to.name} for {', '.join(names)}",
                ", ".join(f"{name}: {end}" for name, end in ends.items()),
                "give a folder, or a file of that kind (an MP4 holds no alpha)",
            )
        return {names[0]: to}
    return {name: place(to, name, clip) for name in names}


def write(
    paths: Mapping[str, Path], about: About, shots: Iterable[Shot]
) -> Iterator[None]:
    """Write a clip in several formats, a step a frame; nothing before the first step.

    Args:
        paths: By format, its file or folder; folders are made. A folder that is not
            there yet gets its name when it is whole.
        about: The clip.
        shots: Its frames in order.

    Raises:
        UserError: As `check`, and if a file cannot be written.
    """
    check(list(paths))
    with contextlib.ExitStack() as stack:
        writers = []
        for name, path in paths.items():
            if not FORMATS[name].suffix and not path.exists():
                path = stack.enter_context(files.folder_aside(path))
            writers.append(stack.enter_context(FORMATS[name].opened(path, about)))
        for shot in shots:
            for add in writers:
                add(shot)
            yield
