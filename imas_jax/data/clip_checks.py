"""What can be wrong with a dataset's files, found before any work starts.

Each check adds to one list of problems, so that a report names everything at once. What
is right and wrong is told in `clips.py`.
"""

import concurrent.futures
import itertools
import os
import re
from collections.abc import Sequence
from pathlib import Path

from ml_collections import ConfigDict

from imas_jax import errors
from imas_jax.data import images, layouts
from imas_jax.data.datasets import DATASETS

# Bytes. Files and folders are named after clips and frames, with up to 50 bytes around
# them, and 255 is the limit of file systems.
LONGEST_NAME = 200
SHORTEST_SIDE = 16  # px: below it no flow estimator works


def check_counts(
    listings: Sequence[layouts.Listing],
    data: ConfigDict,
    split: str,
    problems: errors.ProblemList,
) -> None:
    """Compare with the published numbers of sequences and frames."""
    if data.sequences:
        return
    layout = layouts.resolve(data)
    dataset = DATASETS.get(layout)
    if dataset is None:
        return
    if dataset.counted and layouts.davis_resolution(data) not in dataset.counted:
        return
    divided = dataset.splits or dataset.lists
    expected = dataset.counts.get(split if divided else "")
    if expected is None:
        return
    clips, frames = len(listings), sum(len(x.paths) for x in listings)
    if clips < expected[0] or frames < expected[1]:
        of = f"{expected[0]} sequences" + (
            f", {expected[1]} frames" * bool(expected[1])
        )
        problems.add(
            f"{layout} {split}".strip(),
            f"a partial copy: {clips} sequences, {frames} frames; published are {of}",
        )


def check_listing(
    listing: layouts.Listing,
    pool: concurrent.futures.Executor,
    partial: bool,
    fewest: int,
    problems: errors.ProblemList,
    notes: errors.ProblemList,
) -> tuple[int, int]:
    """Check one clip's files; return the (h, w) most of its frames have.

    Args:
        listing: The clip's files, some of which may be missing.
        pool: Where files are read.
        partial: Missing frames are no problem, only worth a note.
        fewest: Frames a clip must have.
        problems: Gets what must be repaired.
        notes: Gets what is worth a warning.
    """
    if listing.problem:
        problems.add(listing.name, listing.problem)
        return (0, 0)
    present = [p for p in listing.paths if p.is_file()]
    gaps = notes if partial else problems
    for path in listing.paths:
        if not path.is_file():
            gaps.add(path, _absence(path))
    check_numbering(listing.name, present, problems, gaps)
    if len(present) < fewest:
        why = "motion needs two: " if fewest > 1 else ""
        problems.add(listing.name, f"{len(present)} frame(s); {why}remove the clip")
    headers = list(pool.map(images.inspect, present))
    sizes = [x.size for x in headers if not x.problem]
    usual = max(sorted(set(sizes)), key=sizes.count) if sizes else (0, 0)
    for path, header in zip(present, headers, strict=True):
        if header.problem:
            problems.add(path, header.problem)
        elif header.size != usual:
            problems.add(
                path, f"is {header.size} (h, w), the clip is {usual}; resize or remove"
            )
    if sizes and min(usual) < SHORTEST_SIDE:
        problems.add(
            listing.name, f"frames are {usual}; no side may be under {SHORTEST_SIDE} px"
        )
    return usual


def check_names(
    listings: Sequence[layouts.Listing], problems: errors.ProblemList
) -> None:
    """Find names that the files of later stages cannot bear."""
    for listing in listings:
        for name in (listing.name, *(path.stem for path in listing.paths)):
            length = len(os.fsencode(name))
            if not name.isascii() and any("\ud800" <= c <= "\udfff" for c in name):
                problems.add(ascii(name), "the name is not UTF-8; rename it")
            elif length > LONGEST_NAME:
                problems.add(
                    f"{name[:40]}...",
                    f"a name of {length} bytes; no more than {LONGEST_NAME}: rename it",
                )


def check_numbering(
    name: str,
    paths: Sequence[Path],
    problems: errors.ProblemList,
    gaps: errors.ProblemList,
) -> None:
    """Find two files for one frame, and holes in the numbers (last digits of stems)."""
    found = [re.search(r"(\d+)\D*$", p.stem) for p in paths]
    if not paths or any(x is None for x in found):
        return  # names without numbers say nothing about holes
    numbers = [int(x.group(1)) for x in found if x is not None]
    prefixes = {p.stem[: x.start()] for p, x in zip(paths, found, strict=True) if x}
    if len(prefixes) > 1:
        return  # e.g. dates: the last digits alone do not count frames
    order = sorted(range(len(paths)), key=lambda i: numbers[i])
    steps = [numbers[b] - numbers[a] for a, b in itertools.pairwise(order)]
    usual = min((s for s in steps if s > 0), default=1)
    for place, step in enumerate(steps):
        before, after = paths[order[place]], paths[order[place + 1]]
        if step == 0:
            problems.add(after, f"is the same frame as {before.name}; remove one")
        elif step > usual:
            lost = step // usual - 1
            gaps.add(
                f"{name}: between {before.name} and {after.name}",
                f"{lost} frame(s) missing; copy them again or renumber",
            )


def _absence(path: Path) -> str:
    """Say why a listed frame is no file."""
    if path.exists():
        return "is no file but a pipe or a device; put the frame in its place"
    if path.is_symlink():
        return "is a link to nothing; copy the frame itself"
    return "is listed in the image set but missing; copy it again"
