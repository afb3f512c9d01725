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
    """Shorten paths to what tells them apart: their last part, if that does.

    A run's `predict/masks` goes by the run's name. Where last parts are the same, what
    all paths begin and end with is left out.
    """
    names = [_short_name(folder.absolute()) for folder in folders]
    if len(set(names)) == len(names):
        return names
    parts = [folder.absolute().parts for folder in folders]
    shared = len(Path(os.path.commonpath([Path(*one) for one in parts])).parts)
    parts = [one[shared:] for one in parts]
    while len({one[-1:] for one in parts}) == 1 and min(map(len, parts)) > 1:
        parts = [one[:-1] for one in parts]
    return [str(Path(*one)) if one else folders[0].name for one in parts]


def _short_name(folder: Path) -> str:
    ours = folder.parts[-2:] == ("predict", "masks")
    return folder.parents[1].name if ours else folder.name
