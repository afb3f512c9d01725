"""The files beside the report that it leads to: those that are there, by clip."""

import os
from collections.abc import Iterator, Sequence
from pathlib import Path

from imas_jax.report.document import Link
from imas_jax.stages import predict

# What lies where, in a run's folder; "*" is the clip.
PLACES = (
    ("overlay video, MP4", "report/videos/*.mp4"),
    ("contact sheet, JPEG", "report/overlays/*.jpg"),
    ("masks, PNG", f"predict/{predict.MASKS}/*"),
    ("soft masks, PNG", f"predict/{predict.SOFT_PICTURES}/*"),
)
FORMATS = "predict/formats"  # what `predict.formats` asks for


class Links:
    """Finds a run's files.

    Args:
        workdir: Of the run; its predict stage is finished.
        clips: Names of its clips.
    """

    def __init__(self, workdir: Path, clips: Sequence[str]):
        self._root, self._page = workdir, workdir / "report"
        self._formats = list(_formats(workdir / FORMATS, set(clips)))

    def of_clip(self, name: str) -> tuple[Link, ...]:
        """Return what is there of one clip."""
        found = [
            (what, self._root / place.replace("*", name)) for what, place in PLACES
        ]
        found += [(what, path) for what, clip, path in self._formats if clip == name]
        return tuple(self._link(what, path) for what, path in found if path.exists())

    def of_all(self) -> tuple[Link, ...]:
        """Return the folders, and the files that hold all clips."""
        found = [(what, (self._root / place).parent) for what, place in PLACES]
        found += [(what, path) for what, clip, path in self._formats if not clip]
        return tuple(self._link(what, path) for what, path in found if path.exists())

    def _link(self, what: str, path: Path) -> Link:
        relative = Path(os.path.relpath(path, self._page)).as_posix()
        if not path.is_dir():
            return Link(what, relative, f"{path.stat().st_size / 1e6:.1f} MB")
        count = sum(1 for _ in path.iterdir())
        return Link(what, relative + "/", f"folder of {count}")


def _formats(folder: Path, clips: set[str]) -> Iterator[tuple[str, str, Path]]:
    """Yield name, clip ("" for all) and path of what was exported.

    `<format>/<clip>...` is a clip's; another file or folder is of all clips.
    """
    for entry in sorted(folder.iterdir()) if folder.is_dir() else ():
        inside = sorted(entry.iterdir()) if entry.is_dir() else []
        owned = [(path, _owner(path, clips)) for path in inside]
        if entry.name.startswith("."):
            continue  # a draft
        if not any(clip for _, clip in owned):
            yield entry.name, _owner(entry, clips), entry
        for path, clip in owned:
            if clip:
                yield entry.name, clip, path


def _owner(path: Path, clips: set[str]) -> str:
    """Return the clip that a path is named for, or ""."""
    return next((n for n in (path.name, path.stem) if n in clips), "")
