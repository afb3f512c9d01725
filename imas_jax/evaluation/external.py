"""Scores any folder of masks against a data set: no run, no network, any method.

Masks are read one at a time at the size of their annotation, so the same folder gives
the same numbers bit for bit.
"""

import dataclasses
from collections.abc import Iterator, Mapping, Sequence

import numpy as np
from ml_collections import ConfigDict

from imas_jax import errors
from imas_jax.data import annotations
from imas_jax.data.clips import Clip
from imas_jax.evaluation import mask_folders, metrics, protocol
from imas_jax.evaluation.mask_folders import MaskFolder
from imas_jax.progress import progress

# A complement that is ahead by so much, in J, is no coincidence.
INVERTED = 0.3


@dataclasses.dataclass(frozen=True)
class FolderScore:
    """What a folder of masks scored.

    Attributes:
        scores: One a sequence.
        notes: What is odd about the masks, a line each.
    """

    scores: tuple[protocol.SequenceScore, ...]
    notes: tuple[str, ...]


def check_folder(
    masks: MaskFolder, data: ConfigDict, clips: Sequence[Clip], partial: bool = False
) -> tuple[str, ...]:
    """Look at every mask that will be scored before any is.

    Masks of frames that some protocol drops may be missing: flow methods leave none of
    a sequence's last frame.

    Args:
        masks: The folder.
        data: The data set, `config.data`.
        clips: The clips to score.
        partial: Whether any mask may be missing.

    Returns:
        A line each for masks that are missing and for sequences without annotation.

    Raises:
        UserError: If no clip is annotated, masks are missing, or some cannot be read;
            all are listed.
    """
    expected = _expected(data, clips)
    if not expected:
        raise errors.UserError(
            f"none of {len(clips)} sequences at {data.root} is annotated",
            "annotations to score against",
            "give the whole data set with data.root, or another evaluate.split",
        )
    lines = list(_missing(masks, clips, expected, partial))
    problems = errors.ProblemList()
    for name, frames in expected.items():
        for path in filter(None, (masks.find(name, frame) for frame in frames)):
            try:
                mask_folders.read_values(path)
            except errors.UserError as error:
                problems.add(name, error.found)
    problems.raise_if_any(
        f"masks in {masks.root}", "complete image files", "write these masks again"
    )
    if extra := sorted(set(masks.files) - set(expected)):
        lines.append(f"{_some(extra, 5)}: not among the sequences to score")
    return tuple(lines)


def score_folder(
    masks: MaskFolder, data: ConfigDict, clips: Sequence[Clip], partial: bool = False
) -> FolderScore:
    """Score the annotated frames of the clips, after `check_folder`.

    Args:
        masks: The folder; see `mask_folders.open_masks`.
        data: The data set, `config.data`.
        clips: The clips to score; those without annotations are passed over.
        partial: Whether to score what is there as if nothing were missing.

    Raises:
        UserError: If a mask contradicts the folder's encoding.
    """
    expected = _expected(data, clips)
    there = [clip for clip in clips if clip.name in expected]
    there = [clip for clip in there if clip.name in masks.files]
    scores, notes = [], _Notes()
    for clip in progress(there, len(there), f"scoring {masks.root.name}", "clip"):
        pairs = notes.watch(_pairs(masks, data, clip), masks, clip)
        score = protocol.score_sequence(clip.name, len(clip.frames), pairs)
        gone = masks.missing({clip.name: expected[clip.name]}).get(clip.name, [])
        lost = [t for t, f in enumerate(clip.frames) if f.name in gone and not partial]
        scores.append(dataclasses.replace(score, missing=tuple(lost)))
    return FolderScore(tuple(scores), tuple(notes.lines()))


def _expected(data: ConfigDict, clips: Sequence[Clip]) -> dict[str, list[str]]:
    """Return the names of the annotated frames of each annotated clip."""
    truth = {clip.name: annotations.annotated_frames(data, clip) for clip in clips}
    return {
        clip.name: [clip.frames[t].name for t in sorted(truth[clip.name])]
        for clip in clips
        if truth[clip.name]
    }


def _missing(
    masks: MaskFolder,
    clips: Sequence[Clip],
    expected: Mapping[str, Sequence[str]],
    partial: bool,
) -> Iterator[str]:
    """Say in one line which masks are missing, or refuse."""
    missing = masks.missing(expected)
    without = [p for p in protocol.PROTOCOLS if not _needs(p, clips, missing)]
    told, problems = [], errors.ProblemList()
    for name, frames in missing.items():
        count = len(expected[name])
        if name not in masks.files:
            told.append(f"{name}: all {count}")
            problems.add(name, f"no masks at all, {count} annotated frames")
            continue
        some = _some(frames, 5)
        told.append(f"{name} {some}")
        problems.add(name, f"{len(frames)} of {count} missing: {some}")
    if not without and not partial:
        problems.raise_if_any(
            f"masks in {masks.root}",
            "a mask of every annotated frame; the first and last of a sequence may be "
            "missing",
            "add them, or score what is there with evaluate.partial=True",
        )
    if told:
        count, total = (sum(map(len, x.values())) for x in (missing, expected))
        line = f"{count} of {total} annotated frames have no mask ({_some(told, 3)})"
        if not partial:
            line += f"; only what drops them is scored: {', '.join(without)}"
        yield line


def _needs(
    which: protocol.Protocol,
    clips: Sequence[Clip],
    missing: Mapping[str, Sequence[str]],
) -> bool:
    """Tell whether a protocol averages any of the missing frames."""
    return any(
        protocol.averages(which, t, len(clip.frames))
        for clip in clips
        for t, frame in enumerate(clip.frames)
        if frame.name in missing.get(clip.name, ())
    )


def _some(names: Sequence[str], count: int) -> str:
    """List the first names."""
    more = f", ... ({len(names)})" if len(names) > count else ""
    return ", ".join(names[:count]) + more


def _pairs(
    masks: MaskFolder, data: ConfigDict, clip: Clip
) -> Iterator[protocol.FramePair]:
    """Read a clip's masks beside their annotations; what is missing is passed over."""
    for t, annotation in annotations.annotated_frames(data, clip).items():
        name = clip.frames[t].name
        if masks.find(clip.name, name) is None:
            continue  # `check_folder` told of it
        truth = annotations.read_truth(annotation)
        size = (truth.foreground.shape[0], truth.foreground.shape[1])
        mask = masks.read(clip.name, name, size)
        yield protocol.FramePair(t, mask, truth.foreground, truth.void)


class _Notes:
    """Counts what is odd about masks while they are scored."""

    def __init__(self) -> None:
        self._resized = 0
        self._example, self._stretched = "", ""
        self._overlap: list[tuple[float, float]] = []

    def watch(
        self, pairs: Iterator[protocol.FramePair], masks: MaskFolder, clip: Clip
    ) -> Iterator[protocol.FramePair]:
        """Pass pairs on."""
        for pair in pairs:
            stored = masks.stored_size(clip.name, clip.frames[pair.index].name)
            if stored != pair.truth.shape:
                self._resized += 1
                same = mask_folders.same_shape(stored, pair.truth.shape)
                if not same or not self._stretched:
                    self._example = f"{stored} to {pair.truth.shape}"
                if not same:
                    self._stretched = ", another shape: are they cut or squashed?"
            self._overlap.append(
                (
                    metrics.jaccard(pair.prediction, pair.truth),
                    metrics.jaccard(~pair.prediction, pair.truth),
                )
            )
            yield pair

    def lines(self) -> Iterator[str]:
        """Say what was odd."""
        if self._resized:
            yield (
                f"{self._resized} mask(s) resized to their annotation, e.g. "
                f"{self._example}{self._stretched}"
            )
        if not self._overlap:
            return
        plain, complement = np.mean(self._overlap, axis=0)
        if complement > plain + INVERTED:
            yield (
                f"J is {100 * plain:.1f} and that of the complement "
                f"{100 * complement:.1f}: is this the background's channel?"
            )
