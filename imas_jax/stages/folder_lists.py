"""Lists of folders as a config field holds them, and short names for their rows."""

import glob
import os
from pathlib import Path

from imas_jax.errors import ProblemList


def paths(text: str, what: str) -> list[Path]:
    """Split a comma-separated list of folders, each of which may have wildcards.

    Raises:
        UserError: If there is none, or some match nothing.
    """
    problems, found = ProblemList(), []
    for pattern in filter(None, (part.strip() for part in text.split(","))):
        matches = sorted(path for path in glob.glob(pattern) if Path(path).is_dir())
        if not matches:
            problems.add(pattern, "no such folder")
        found += [Path(match) for match in matches]
    if not found:
        problems.add(what, "names no folder")
    problems.raise_if_any(
        f"{what} = {text!r}",
        "folders, separated by commas; * stands for any name",
        "correct the list",
    )
    return list(dict.fromkeys(found))


def short_names(folders: list[Path]) -> list[str]:
    """Shorten paths to what tells them apart.

    `runs/a/predict/masks` and `runs/b/predict/masks` are `a` and `b`.
    """
    if len(folders) == 1:
        folder = folders[0].absolute()
        ours = folder.parts[-2:] == ("predict", "masks")
        return [folder.parents[1].name if ours else folder.name]
    names = [folder.absolute().parts for folder in folders]
    shared = len(Path(os.path.commonpath([Path(*parts) for parts in names])).parts)
    names = [parts[shared:] for parts in names]
    while len({parts[-1:] for parts in names}) == 1 and min(map(len, names)) > 1:
        names = [parts[:-1] for parts in names]
    return [str(Path(*parts)) if parts else folders[0].name for parts in names]
