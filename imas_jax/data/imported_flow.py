"""Flow computed elsewhere, found in three layouts and checked before it is trusted.

| layout | forward t -> t+gap | backward t+gap -> t |
|---|---|---|
| authors (RCF) | `Flows_NewCT/<clip>/<t+gap>` | `BackwardFlows_NewCT/<clip>/<t+gap>` |
| MotionGrouping, OCLR | `Flows_gap1/<clip>/<t>` | `Flows_gap-1/<clip>/<t+gap>` |
| plain | `forward/<clip>/<t>` | `backward/<clip>/<t>` |

`<t>` is the name of a frame; a resolution folder may stand before `<clip>`. Gap 2 is
`Flows_NewCT2`, `Flows_gap2`, `forward_gap2`. Any format of `flow/formats.py` may stand
in any layout. Flow must have the frames' own size.
"""

import collections
import dataclasses
import glob
import zlib
from collections.abc import Callable, Sequence
from pathlib import Path

import cv2
import numpy as np
from absl import logging
from jaxtyping import Float
from scipy import ndimage

from imas_jax import errors
from imas_jax.data import clips as clips_lib
from imas_jax.flow import estimators, files, formats

PROBES = 5  # pairs a clip whose direction is checked against the frames
MOVES = 0.5  # px of median motion below which a direction cannot be told
FASTEST = float(np.finfo(np.float16).max)  # px; more cannot be stored, nor be meant
SPARSE = 0.2  # share of unknown pixels above which a field is not filled


@dataclasses.dataclass(frozen=True)
class Layout:
    """How one program names its folders and files.

    Attributes:
        forward: Folder of the forward flow of a gap.
        backward: Folder of the backward flow of a gap.
        named_by: Which frame of the pair names the file, forward and backward.
    """

    forward: Callable[[int], str]
    backward: Callable[[int], str]
    named_by: tuple[str, str]


def _gap_suffix(gap: int) -> str:
    return str(gap) if gap > 1 else ""


LAYOUTS = {
    "authors": Layout(
        lambda gap: f"Flows_NewCT{_gap_suffix(gap)}",
        lambda gap: f"BackwardFlows_NewCT{_gap_suffix(gap)}",
        ("second", "second"),
    ),
    "motion_grouping": Layout(
        lambda gap: f"Flows_gap{gap}",
        lambda gap: f"Flows_gap-{gap}",
        ("first", "second"),
    ),
    "plain": Layout(
        lambda gap: "forward" + (f"_gap{gap}" if gap > 1 else ""),
        lambda gap: "backward" + (f"_gap{gap}" if gap > 1 else ""),
        ("first", "first"),
    ),
}


@dataclasses.dataclass(frozen=True)
class Importer:
    """Reads flow of a folder in one of the layouts."""

    root: Path
    layout: Layout

    def path(
        self, clip: clips_lib.Clip, pair: clips_lib.Pair, direction: files.Direction
    ) -> Path | None:
        """Return the file of a pair, or None if there is none."""
        folder = self.folder(clip, pair.second - pair.first, direction)
        named_by = self.layout.named_by[files.DIRECTIONS.index(direction)]
        frame = clip.frames[getattr(pair, named_by)]
        if folder is None:
            return None
        paths = (folder / (frame.name + suffix) for suffix in formats.SUFFIXES)
        return next((path for path in paths if path.is_file()), None)

    def folder(
        self, clip: clips_lib.Clip, gap: int, direction: files.Direction
    ) -> Path | None:
        """Return the folder of a clip, with or without a resolution in between."""
        name = getattr(self.layout, direction)(gap)
        direct = self.root / name / clip.name
        deeper = sorted((self.root / name).glob(f"*/{glob.escape(clip.name)}"))
        return direct if direct.is_dir() else next(iter(deeper), None)

    def read(self, clip: clips_lib.Clip, pair: clips_lib.Pair) -> estimators.FlowPair:
        """Return forward and backward flow in pixels of `clip.size`.

        Raises:
            UserError: If a file is missing, broken, sparse or of another size.
        """
        forward, backward = (
            self._field(clip, pair, direction) for direction in files.DIRECTIONS
        )
        return forward, backward

    def fingerprint(self, clip: clips_lib.Clip, pair: clips_lib.Pair) -> str:
        """Return what changes when a pair's files are replaced."""
        paths = [self.path(clip, pair, d) for d in files.DIRECTIONS]
        there = [path for path in paths if path is not None]
        return "-".join(f"{zlib.crc32(path.read_bytes()):08x}" for path in there)

    def _field(
        self, clip: clips_lib.Clip, pair: clips_lib.Pair, direction: files.Direction
    ) -> Float[np.ndarray, "h w 2"]:
        path = self.path(clip, pair, direction)
        if path is None:
            raise errors.UserError(
                f"{clip.name}: no {direction} flow of pair {pair.first}, {pair.second}",
                f"a file under {self.root}",
                "compute it, or let this project do it: --config.flow.estimator=dis",
            )
        flow = fill_unknown(formats.read(path), path)
        h, w = flow.shape[:2]
        if (h, w) not in (clip.size, clip.native_size):
            raise errors.UserError(
                f"{path} is {(h, w)} (h, w)", f"{clip.size}", "compute it at that size"
            )
        return flow if (h, w) == clip.size else estimators.resize_flow(flow, clip.size)


def open_folder(root: Path) -> Importer:
    """Recognise the layout of a folder.

    Raises:
        UserError: If it is none of them.
    """
    for layout in LAYOUTS.values():
        if (root / layout.forward(1)).is_dir():
            return Importer(root, layout)
    known = [f"{x.forward(1)}/ and {x.backward(1)}/" for x in LAYOUTS.values()]
    raise errors.UserError(
        f"flow.source = {str(root)!r} holds no flow folder",
        "one of: " + "; ".join(known),
        "set --config.flow.source to the folder that holds them",
    )


def check(
    importer: Importer, clips: Sequence[clips_lib.Clip], gaps: Sequence[int]
) -> None:
    """Find everything that does not fit the clips, before anything is imported.

    Raises:
        UserError: One list of missing and surplus files, wrong sizes and directions.
    """
    problems = errors.ProblemList()
    for clip in clips:
        for gap in gaps:
            before = len(problems.problems)
            _check_files(importer, clip, gap, problems)
            if len(problems.problems) == before:
                _check_direction(importer, clip, gap, problems)
    problems.raise_if_any(
        f"flow.source {importer.root}",
        "one file a pair and direction, of the frames' size, for every clip",
        "compute what is missing or wrong again, or set --config.flow.estimator=dis",
    )


def fill_unknown(
    flow: Float[np.ndarray, "h w 2"], where: Path
) -> Float[np.ndarray, "h w 2"]:
    """Give unknown pixels (not finite, or beyond `FASTEST`) the nearest known flow.

    Raises:
        UserError: If more than a fifth is unknown: such a field is no training signal.
    """
    unknown = ~(np.abs(flow) <= FASTEST).all(-1)
    if not unknown.any():
        return flow
    if unknown.mean() > SPARSE:
        raise errors.UserError(
            f"{where} knows {100 * (1 - unknown.mean()):.0f} % of its pixels",
            f"dense flow, at least {100 * (1 - SPARSE):.0f} %",
            "import flow of an estimator, not of sparse ground truth",
        )
    nearest = ndimage.distance_transform_edt(
        unknown, return_distances=False, return_indices=True
    )
    return flow[tuple(nearest)]


def _check_files(
    importer: Importer,
    clip: clips_lib.Clip,
    gap: int,
    problems: errors.ProblemList,
) -> None:
    pairs = clips_lib.pairs([clip], gap)
    for direction in files.DIRECTIONS:
        folder = importer.folder(clip, gap, direction)
        if folder is None:
            name = getattr(importer.layout, direction)(gap)
            problems.add(f"{clip.name}", f"no {direction} flow: no {name}/{clip.name}/")
            continue
        try:
            names = [p.suffix.lower() for p in folder.iterdir()]
        except OSError as error:
            problems.add(folder, f"cannot be read ({error.strerror})")
            continue
        found = [suffix for suffix in names if suffix in formats.SUFFIXES]
        paths = [importer.path(clip, pair, direction) for pair in pairs]
        missing = [pair for pair, p in zip(pairs, paths, strict=True) if p is None]
        if missing:
            at = clip.frames[missing[0].first].name
            problems.add(
                folder,
                f"{len(found)} files for {len(pairs)} pairs; {len(missing)} pair(s) "
                f"without {direction} flow, the first at frame {at}",
            )
        _check_sizes([p for p in paths if p is not None], clip, problems)


def _check_sizes(
    paths: Sequence[Path], clip: clips_lib.Clip, problems: errors.ProblemList
) -> None:
    wrong: dict[tuple[int, int], list[Path]] = collections.defaultdict(list)
    for path in paths:
        try:
            size = formats.size(path)
        except errors.UserError as error:
            problems.add(path, error.found.removeprefix(f"{path} "))
            continue
        if size not in (clip.size, clip.native_size):
            wrong[size].append(path)
    for size, those in wrong.items():
        problems.add(
            those[0],
            f"is {size} (h, w), frames are {clip.native_size}; {len(those)} such files",
        )


def _check_direction(
    importer: Importer,
    clip: clips_lib.Clip,
    gap: int,
    problems: errors.ProblemList,
) -> None:
    """Ask the frames: forward flow must bring frame t + gap onto frame t."""
    pairs = clips_lib.pairs([clip], gap)
    votes: list[bool] = []
    worse: list[bool] = []
    for pair in pairs[:: max(len(pairs) // PROBES, 1)][:PROBES]:
        try:
            forward, backward = importer.read(clip, pair)
        except errors.UserError as error:
            problems.add(clip.name, error.found)
            return
        if np.median(np.linalg.norm(forward, axis=-1)) < MOVES:
            continue
        first, second = clip.read(pair.first), clip.read(pair.second)
        right = _mismatch(first, second, forward)
        votes.append(_mismatch(first, second, backward) < right)
        worse.append(_mismatch(first, second, np.zeros_like(forward)) < right)
    if votes and np.mean(votes) > 0.5:
        problems.add(
            clip.name, "forward and backward flow are exchanged, or have the wrong sign"
        )
    elif worse and np.mean(worse) > 0.5:
        logging.warning(
            "%s: imported flow matches the frames worse than no motion at all",
            clip.name,
        )


def _mismatch(first: np.ndarray, second: np.ndarray, flow: np.ndarray) -> float:
    """Return the mean grey difference of frame t and frame t + gap brought onto it."""
    grey0, grey1 = (
        cv2.cvtColor(f, cv2.COLOR_RGB2GRAY).astype(np.float32) for f in (first, second)
    )
    h, w = grey0.shape
    x, y = np.meshgrid(np.arange(w, dtype=np.float32), np.arange(h, dtype=np.float32))
    x, y = x + flow[..., 0], y + flow[..., 1]
    brought = cv2.remap(grey1, x, y, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
    inside = (x >= 0) & (x <= w - 1) & (y >= 0) & (y <= h - 1)
    return float(np.abs(brought - grey0)[inside].mean()) if inside.any() else np.inf
