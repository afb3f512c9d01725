"""What stage 1 and 2 train on: every frame pair of some clips, with its flow on disk.

Both sources of `pipeline.py` and the shards of `builders.py` read pairs through this
file, so they hold the same values in the same order. No annotation comes near it.
"""

import concurrent.futures
import dataclasses
import functools
import itertools
import os
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

import numpy as np
from jaxtyping import Float16, UInt8
from ml_collections import ConfigDict

from imas_jax import errors
from imas_jax.data import clips as clips_lib
from imas_jax.flow import files, motion

BACKGROUNDS = ("none", "homography")


@dataclasses.dataclass(frozen=True)
class TrainingSet:
    """Frame pairs of equally large clips.

    Attributes:
        clips: All of one size.
        pairs: In the order batches number them: gap by gap, clip by clip.
        flow: Where the flow of every pair lies; None where none is read (`apart`).
        background: "none" gives flow as estimated, "homography" less camera motion.
    """

    clips: tuple[clips_lib.Clip, ...]
    pairs: tuple[clips_lib.Pair, ...]
    flow: files.FlowFolder | None
    background: str

    @property
    def size(self) -> tuple[int, int]:
        """Return the (h, w) of all frames."""
        return self.clips[0].size

    @functools.cached_property
    def indices_of_clip(self) -> tuple[tuple[int, ...], ...]:
        """Return the indices of every clip's pairs, in order."""
        indices: list[list[int]] = [[] for _ in self.clips]
        for index, pair in enumerate(self.pairs):
            indices[pair.clip].append(index)
        return tuple(map(tuple, indices))

    def paths(self, index: int) -> list[Path]:
        """Return the files of a pair's flow, forward and backward; none without."""
        if self.flow is None:
            return []
        pair = self.pairs[index]
        name, gap = self.clips[pair.clip].name, pair.second - pair.first
        return [
            self.flow.path(name, pair.first, direction, gap)
            for direction in files.DIRECTIONS
        ]

    def flow_of(self, index: int) -> Float16[np.ndarray, "2 hf wf 2"]:
        """Read forward and backward flow of a pair, in pixels of the frames.

        Raises:
            UserError: If a file is missing, damaged, not finite or of other frames.
        """
        if self.flow is None:
            return np.zeros((2, 2, 2, 2), np.float16)
        pair = self.pairs[index]
        clip = self.clips[pair.clip]
        both = []
        for direction in files.DIRECTIONS:
            where = (clip.name, pair.first, direction, pair.second - pair.first)
            field = self.flow.read(*where)
            _check_field(field, clip, self.flow.path(*where))
            flow = field.flow
            if self.background == "homography":
                flow = motion.subtract_background(flow, field.homography, clip.size)
                flow = flow.astype(np.float16)
            both.append(flow)
        if both[0].shape != both[1].shape:
            raise errors.UserError(
                f"flow of {clip.name} pair {pair.first} has grids {both[0].shape[:2]} "
                f"forward and {both[1].shape[:2]} backward",
                "one grid for both directions",
                "run --config.stage=flow again, or import both at one size",
            )
        return np.stack(both)


def find(
    config: ConfigDict, clips: Sequence[clips_lib.Clip], flow: files.FlowFolder
) -> TrainingSet:
    """List the pairs of `config.flow.gaps`; batches need frames of one size.

    Raises:
        UserError: If clips differ in size; all are named.
    """
    sizes = [clip.size for clip in clips]
    if len(set(sizes)) > 1:
        usual = max(sorted(set(sizes)), key=sizes.count)
        odd = [
            f"{clip.name} is {clip.size[0]}x{clip.size[1]}"
            for clip in clips
            if clip.size != usual
        ]
        raise errors.UserError(
            f"clips of different sizes (h x w): most are {usual[0]}x{usual[1]}, but\n"
            + errors.bullet(odd),
            "one size, because a training batch mixes clips",
            "set one for all, e.g. --config.data.size=480,854, or leave clips out "
            "with --config.data.sequences",
        )
    pairs = [
        pair for gap in config.flow.gaps for pair in clips_lib.pairs(list(clips), gap)
    ]
    paired = {pair.clip for pair in pairs}
    alone = [clip.name for number, clip in enumerate(clips) if number not in paired]
    if alone or not pairs:
        raise errors.UserError(
            f"no frame pair with flow.gaps={tuple(config.flow.gaps)} in: "
            + (", ".join(alone) or "no clips at all"),
            "every clip longer than the smallest gap",
            "leave these clips out with --config.data.sequences, or lower flow.gaps",
        )
    return TrainingSet(tuple(clips), tuple(pairs), flow, config.flow.background)


def apart(training_set: TrainingSet) -> TrainingSet:
    """Return pairs of frames half a clip apart, without flow.

    For losses that look at single frames: neighbours are much alike, and a batch of
    them shows half as many scenes.
    """
    pairs = [
        clips_lib.Pair(number, t, (t + count // 2) % count)
        for number, clip in enumerate(training_set.clips)
        for count in [len(clip.frames)]
        for t in range(count)
    ]
    return dataclasses.replace(training_set, pairs=tuple(pairs), flow=None)


def read_frames(training_set: TrainingSet) -> list[UInt8[np.ndarray, "_ h w 3"]]:
    """Decode all frames of all clips, clips in parallel, frames of a clip in order.

    Raises:
        UserError: If a frame cannot be read.
    """

    def decode(clip: clips_lib.Clip) -> np.ndarray:
        frames = np.empty((len(clip.frames), *clip.size, 3), np.uint8)
        for t in range(len(clip.frames)):
            frames[t] = clip.read(t)
        return frames

    with concurrent.futures.ThreadPoolExecutor(os.cpu_count()) as pool:
        return list(pool.map(decode, training_set.clips))


@dataclasses.dataclass(frozen=True)
class Look:
    """What was seen in the flow of some pairs.

    Attributes:
        problems: A line a pair whose flow cannot be used.
        grids: (hf, wf) of the others, by index.
    """

    problems: list[str]
    grids: dict[int, tuple[int, ...]]


def read_flows(training_set: TrainingSet) -> list[Float16[np.ndarray, "2 hf wf 2"]]:
    """Read the flow of all pairs.

    Raises:
        UserError: One report of every file that is missing, damaged or of another size.
    """
    flows: list[np.ndarray] = [np.empty(0)] * len(training_set.pairs)
    everything = range(len(training_set.pairs))
    look = look_at_flows(training_set, everything, flows.__setitem__)
    refuse_flows(training_set, [look])
    return flows


def check_flows(training_set: TrainingSet) -> None:
    """Read every flow file once and keep none.

    Raises:
        UserError: As `read_flows`.
    """
    everything = range(len(training_set.pairs))
    refuse_flows(training_set, [look_at_flows(training_set, everything)])


def look_at_flows(
    training_set: TrainingSet,
    indices: Iterable[int],
    visit: Callable[[int, np.ndarray], None] = lambda index, flow: None,
) -> Look:
    """Read the flow of some pairs, in parallel; show what is sound to `visit`."""
    problems, grids = errors.ProblemList(), {}

    def read(index: int) -> None:
        try:
            flow = training_set.flow_of(index)
        except errors.UserError as error:
            problems.add(_name(training_set, index), error.found)
        else:
            grids[index] = flow.shape[1:3]
            visit(index, flow)

    with concurrent.futures.ThreadPoolExecutor(os.cpu_count()) as pool:
        list(pool.map(read, indices))
    return Look(problems.problems, grids)


def refuse_flows(training_set: TrainingSet, looks: Sequence[Look]) -> None:
    """Raise what was seen in flow, each pair of the set by one look.

    Raises:
        UserError: One report of every file that is missing, damaged or of another size.
    """
    if training_set.flow is None:
        return
    problems = errors.ProblemList()
    grids: dict[int, tuple[int, ...]] = {}
    for look in looks:
        problems.problems += look.problems
        grids |= look.grids
    sizes = list(grids.values())
    usual = max(sorted(set(sizes)), key=sizes.count, default=(0, 0))
    for index, grid in grids.items():
        if grid != usual:
            problems.add(
                _name(training_set, index), f"its flow grid is {grid}, others {usual}"
            )
    problems.problems.sort()
    problems.raise_if_any(
        f"flow in {training_set.flow.root / training_set.flow.digest}",
        "a sound file for every pair and direction, all on one grid",
        "run --config.stage=flow: it computes what is missing or damaged",
    )


def memory_needed(training_set: TrainingSet, frames: bool = True) -> int:
    """Return the bytes all flows, and all frames if wanted, take when decoded."""
    h, w = training_set.size
    count = sum(len(clip.frames) for clip in training_set.clips) if frames else 0
    every = map(training_set.paths, range(len(training_set.pairs)))
    return count * h * w * 3 + sum(
        map(flow_bytes, itertools.chain.from_iterable(every))
    )


def flow_bytes(path: Path) -> int:
    """Return a flow file's size, which is nearly its array's; 0 if it is missing."""
    return path.stat().st_size if path.exists() else 0


def _name(training_set: TrainingSet, index: int) -> str:
    pair = training_set.pairs[index]
    return f"{training_set.clips[pair.clip].name} pair {pair.first}-{pair.second}"


def _check_field(field: files.FlowField, clip: clips_lib.Clip, path: Path) -> None:
    """Refuse flow of other frames than the clip's, and flow that would poison a loss.

    Raises:
        UserError: With the file.
    """
    if field.meta.frame_size != clip.size:
        raise errors.UserError(
            f"flow file {path} is of {field.meta.frame_size} frames",
            f"flow of frames of {clip.size} (h, w)",
            "run --config.stage=flow again",
        )
    bad = int(field.flow.size - np.isfinite(field.flow).sum())
    if bad:
        raise errors.UserError(
            f"flow file {path} has {bad} of {field.flow.size} values that are not "
            "finite",
            "finite values below 65504 px",
            "remove the file and compute or import it again",
        )
