"""Where clips keep their frames: folder names only, no pixels, no annotations.

| layout | tree |
|---|---|
| davis, segtrackv2, fbms59, youtube_vos | a published data set's (`datasets.py`) |
| folders | `<clip>/` |
| folder | frames right in the root: one clip |
| video | the root is a file (`video.py`) |
| videos | video files right in the root, each a clip |
| images | image files anywhere below the root, each a clip of one frame |
| auto | video, davis, folder, folders or videos, by what the root looks like |
"""

import dataclasses
import functools
import os
import re
from collections.abc import Callable, Sequence
from pathlib import Path

from absl import logging
from ml_collections import ConfigDict

from imas_jax import errors
from imas_jax.data import datasets, images
from imas_jax.data.datasets import Dataset

OF_FILMS = ("video", "videos")  # layouts whose listings name a video file each
# Folders that published data sets keep ground truth in: no image to learn from.
ANNOTATED = frozenset(
    folder.split("/{")[0].split("/")[-1]
    for dataset in datasets.DATASETS.values()
    for folder in dataset.truth.folders
)
FILMS = (".mp4", ".mov", ".avi", ".webm", ".mkv", ".gif")


@dataclasses.dataclass(frozen=True)
class Listing:
    """The files of one clip, in order, as found or as a list file promises them.

    Attributes:
        name: Of the clip.
        paths: Its files; what a file is, and whether it is there, is checked later.
        problem: Why they could not be listed, or "".
    """

    name: str
    paths: tuple[Path, ...]
    problem: str = ""


def list_clips(data: ConfigDict, split: str) -> list[Listing]:
    """List the clips of a split that `data.sequences` names; all if it names none.

    Raises:
        UserError: If the root, the split or a named sequence is not there, or folders
            above the clips cannot be read.
    """
    return select(_list_all(data, split), data.sequences)


def members(data: ConfigDict, split: str) -> tuple[str, ...]:
    """Return the names of all sequences of a split, whatever `data.sequences` says.

    Raises:
        UserError: As `list_clips`.
    """
    return tuple(listing.name for listing in _list_all(data, split))


def _list_all(data: ConfigDict, split: str) -> list[Listing]:
    layout = resolve(data)
    try:
        listings = LAYOUTS[layout](data, split)
    except OSError as error:
        raise _unreadable(data, error) from error
    if not listings:
        raise errors.UserError(
            f"image set {split!r} of {data.root} names no sequence",
            "at least one",
            'restore the published list, or set --config.data.split="" for all',
        )
    return listings


def image_set(data: ConfigDict, split: str) -> str:
    """Return the image set that is listed: "" in a layout whose clips are one set."""
    dataset = datasets.DATASETS.get(resolve(data))
    return split if dataset is not None and (dataset.splits or dataset.lists) else ""


def resolve(data: ConfigDict) -> str:
    """Return `data.layout`, with "auto" decided by what the root looks like.

    Raises:
        UserError: If the root is not set, does not exist or cannot be read.
    """
    try:
        return _resolve(data, Path(data.root))
    except OSError as error:
        raise _unreadable(data, error) from error


def _resolve(data: ConfigDict, root: Path) -> str:
    if not data.root or not root.exists():
        raise errors.UserError(
            f"data.root = {data.root!r} does not exist"
            if data.root
            else "no data.root",
            "a folder of frames, a dataset, or a video file",
            "set --config.data.root=PATH",
        )
    if not root.is_dir() and not root.is_file():
        raise errors.UserError(
            f"data.root = {data.root!r} is neither a folder nor a file",
            "a folder of frames, a dataset, or a video file",
            "store what comes through a pipe or a device in a file first",
        )
    if data.layout != "auto":
        if data.layout != "video" and not root.is_dir():
            raise errors.UserError(
                f"data.root = {data.root!r} is a file",
                f"a folder, for data.layout = {data.layout!r}",
                "set --config.data.layout=video for a video file",
            )
        return data.layout
    if root.is_file():
        return "video"
    if (root / "JPEGImages").is_dir():
        return "davis"
    if any(map(images.is_image, root.iterdir())):
        return "folder"
    return "folders" if _visible_folders(root) or not _films(root) else "videos"


def _unreadable(data: ConfigDict, error: OSError) -> errors.UserError:
    return errors.UserError(
        f"{error.filename or data.root} cannot be read ({error.strerror})",
        "a folder of frames, a dataset, or a video file, and the right to read it",
        "correct --config.data.root, or the permissions there",
    )


def davis_resolution(data: ConfigDict) -> str:
    """Return the name of the DAVIS subfolder, e.g. "480p".

    Raises:
        UserError: If there is none, or none of the name asked for.
    """
    folder = Path(data.root) / "JPEGImages"
    found = sorted(p.name for p in folder.glob("*") if p.is_dir())
    wanted = data.resolution or ("480p" if "480p" in found else "")
    if wanted in found:
        return wanted
    if not wanted and len(found) == 1:
        return found[0]
    raise errors.UserError(
        f"{folder} holds {', '.join(found) if found else 'no folder'}",
        f"a folder {wanted!r}" if wanted else "one resolution, or 480p among several",
        "set --config.data.root to the folder that holds JPEGImages/, and "
        "--config.data.resolution to one of its resolutions",
    )


def natural_key(name: str) -> tuple:
    """Sort key by which "frame 9" comes before "frame 10"."""
    parts = re.split(r"(\d+)", name)
    return tuple((0, int(p), "") if p.isdigit() else (1, 0, p) for p in parts if p)


def select(listings: list[Listing], names: Sequence[str]) -> list[Listing]:
    """Keep the clips named, in the order of the dataset; no names keep all."""
    known = [x.name for x in listings]
    problems = errors.ProblemList()
    for name in names:
        if name not in known:
            problems.add(name, f"no such sequence; {errors.suggestion(name, known)}")
    problems.raise_if_any(
        "data.sequences",
        f"names among {', '.join(known[:8])}{', ...' if len(known) > 8 else ''}",
        "correct --config.data.sequences",
    )
    return [x for x in listings if not names or x.name in names]


def folder_listing(folder: Path, name: str | None = None) -> Listing:
    """List one folder's frames in natural order; stray files are logged and left."""
    try:
        found = [p for p in folder.iterdir() if not p.is_dir()]
    except OSError as error:
        problem = f"{folder} cannot be read ({error.strerror})"
        return Listing(name or folder.name, (), problem)
    frames = sorted(
        (p for p in found if images.is_image(p)), key=lambda p: natural_key(p.name)
    )
    stray = len(found) - len(frames)
    if stray:
        logging.info("%s: %d file(s) that are no images are left alone", folder, stray)
    return Listing(name or folder.name, tuple(frames))


def _subfolders(folder: Path, expected: str) -> list[Path]:
    found = _visible_folders(folder) if folder.is_dir() else []
    if not found:
        raise errors.UserError(
            f"{folder} {'holds no folder' if folder.is_dir() else 'does not exist'}",
            expected,
            "check --config.data.root and --config.data.layout",
        )
    return found


def _visible_folders(folder: Path) -> list[Path]:
    return sorted(
        (
            p
            for p in folder.iterdir()
            if p.is_dir() and not p.name.startswith((".", "__"))
        ),
        key=lambda p: natural_key(p.name),
    )


def _films(folder: Path) -> list[Path]:
    return sorted(
        (
            p
            for p in folder.iterdir()
            if p.suffix.lower() in FILMS and p.name[0] != "." and p.is_file()
        ),
        key=lambda p: natural_key(p.name),
    )


def _published(dataset: Dataset, data: ConfigDict, split: str) -> list[Listing]:
    """List a published data set; image sets it does not have are ignored."""
    parts: Sequence[int] = range(len(dataset.parts))
    if dataset.splits:
        if split not in dataset.splits:
            raise errors.UserError(
                f"{dataset.title} split {split!r}",
                f"one of {', '.join(filter(None, dataset.splits))}",
                errors.suggestion(split, list(dataset.splits)),
            )
        parts = dataset.splits[split]
    listings: list[Listing] = []
    for spellings in (dataset.parts[part] for part in parts):
        folders = [Path(data.root) / spelling for spelling in spellings]
        found = [folder for folder in folders if folder.is_dir()]
        expected = " or ".join(f"{spelling}/<clip>/" for spelling in spellings)
        listings += map(
            folder_listing, _subfolders((found or folders[:1])[-1], expected)
        )
    return listings


def _davis(data: ConfigDict, split: str) -> list[Listing]:
    root, resolution = Path(data.root), davis_resolution(data)
    ((spelling,),) = datasets.DAVIS16.parts
    frames = root / spelling.format(resolution=resolution)
    lists = [root / d.format(resolution=resolution) for d in datasets.DAVIS16.lists]
    found = [d / f"{split}.txt" for d in lists if (d / f"{split}.txt").is_file()]
    if not split:
        return [folder_listing(p) for p in _subfolders(frames, "one folder a clip")]
    if not found:
        known = sorted(p.stem for d in lists for p in d.glob("*.txt"))
        raise errors.UserError(
            f"no image set {split!r} under {root / 'ImageSets'} (there: {known})",
            f"{lists[0] / (split + '.txt')}",
            'name one of these, or "" for every sequence',
        )
    return _read_image_set(found[0], root, frames)


def _read_image_set(file: Path, root: Path, frames: Path) -> list[Listing]:
    """Read lines of `/JPEGImages/480p/bear/00000.jpg ...` or of bare clip names."""
    try:
        lines = file.read_text(encoding="utf-8-sig").splitlines()
    except UnicodeDecodeError as error:
        raise errors.UserError(
            f"image set {file} is no text ({error})",
            "lines of frames or of sequences, in UTF-8",
            "restore the published list",
        ) from error
    named: dict[str, Listing] = {}
    for line in lines:
        words = line.split()
        if not words:
            continue
        if "/" not in words[0]:  # DAVIS 2017 lists sequences, not frames
            folder = frames / words[0]
            empty = Listing(words[0], ())
            named[words[0]] = folder_listing(folder) if folder.is_dir() else empty
            continue
        path = root / words[0].lstrip("/")
        before = named.get(path.parent.name, Listing(path.parent.name, ()))
        named[before.name] = Listing(before.name, (*before.paths, path))
    return list(named.values())


def _folders(data: ConfigDict, split: str) -> list[Listing]:
    del split  # own clips have no image sets
    return [folder_listing(p) for p in _subfolders(Path(data.root), "<clip>/")]


def _folder(data: ConfigDict, split: str) -> list[Listing]:
    del split
    return [folder_listing(Path(data.root), Path(data.root).resolve().name)]


def _video(data: ConfigDict, split: str) -> list[Listing]:
    del split
    root = Path(data.root)
    if root.is_dir():
        raise errors.UserError(
            f"data.root {root} is a folder",
            "a video file, for data.layout = 'video'",
            "name the file, or set --config.data.layout=auto",
        )
    return [Listing(root.stem, (root,))]


def _videos(data: ConfigDict, split: str) -> list[Listing]:
    del split
    found = _films(Path(data.root))
    stems = [path.stem for path in found]
    twice = sorted({stem for stem in stems if stems.count(stem) > 1})
    if not found or twice:
        raise errors.UserError(
            f"{data.root} holds several videos of one name: {', '.join(twice)}"
            if twice
            else f"{data.root} holds no video",
            f"video files ({', '.join(FILMS)}), each with a name of its own",
            "rename them" if twice else "check --config.data.root",
        )
    return [Listing(path.stem, (path,)) for path in found]


def _images(data: ConfigDict, split: str) -> list[Listing]:
    """List every image by its path below the root, but for folders of annotations."""
    del split
    root = Path(data.root)
    found = [
        path
        for folder, _, names in os.walk(root, followlinks=True)
        if not ANNOTATED.intersection(Path(folder).relative_to(root).parts)
        for path in (Path(folder) / name for name in names)
        if images.is_image(path)
    ]
    if not found:
        raise errors.UserError(
            f"{root} and the folders below it hold no image",
            f"files that end in {', '.join(sorted(images.SUFFIXES))}",
            "check --config.data.root and --config.data.layout",
        )
    names = {path: path.relative_to(root).as_posix() for path in found}
    return [
        Listing(names[path], (path,))
        for path in sorted(found, key=lambda path: natural_key(names[path]))
    ]


LAYOUTS: dict[str, Callable[[ConfigDict, str], list[Listing]]] = {
    "davis": _davis,
    "segtrackv2": functools.partial(_published, datasets.SEGTRACKV2),
    "fbms59": functools.partial(_published, datasets.FBMS59),
    "youtube_vos": functools.partial(_published, datasets.YOUTUBE_VOS),
    "folders": _folders,
    "folder": _folder,
    "video": _video,
    "videos": _videos,
    "images": _images,
}
