"""The files beside the report that it leads to: those that are there, by clip."""

import os
from collections.abc import Iterator
from pathlib import Path

from imas_jax.report import exports
from imas_jax.report.document import Link
from imas_jax.stages import predict

# Folders of a run with a file or folder a clip, named for it; each subfolder of stage
# predict is one more.
FOLDERS = {
    "report/videos": "overlay video, MP4",
    "report/overlays": "contact sheet, JPEG",
    f"predict/{predict.MASKS}": "masks, PNG",
}
OURS = predict.SOFT  # what later stages read: no other program does


class Links:
    """Finds a run's files.

    Args:
        workdir: Of the run; its predict stage is finished.
    """

    def __init__(self, workdir: Path):
        self._page = workdir / "report"
        self._folders = {path: name for name, path in _folders(workdir)}

    def of_clip(self, clip: str) -> tuple[Link, ...]:
        """Return what is there of one clip."""
        return tuple(
            self._link(name, path)
            for folder, name in self._folders.items()
            for path in sorted(folder.iterdir())
            if clip in (path.name, path.stem)
        )

    def of_all(self) -> tuple[Link, ...]:
        """Return the folders."""
        return tuple(self._link(name, folder) for folder, name in self._folders.items())

    def _link(self, name: str, path: Path) -> Link:
        relative = Path(os.path.relpath(path, self._page)).as_posix()
        if not path.is_dir():
            return Link(name, relative, f"{path.stat().st_size / 1e6:.1f} MB")
        count = sum(1 for _ in path.iterdir())
        return Link(name, relative + "/", f"folder of {count}")


def _folders(workdir: Path) -> Iterator[tuple[str, Path]]:
    """Yield name and path of the folders that are there, ours first."""
    for place, name in FOLDERS.items():
        if (workdir / place).is_dir():
            yield name, workdir / place
    for path in sorted((workdir / "predict").iterdir()):
        known = path.relative_to(workdir).as_posix() in FOLDERS or path.name == OURS
        if path.is_dir() and not known:
            written = exports.FORMATS.get(path.name)
            yield written.what if written else path.name, path
