"""Scores any folder of masks against a data set: no run, no network, any method.

Masks are read one at a time at the size of their annotation, so the same folder gives
the same numbers bit for bit.
"""

import dataclasses
from collections.abc import Iterator, Sequence

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
        differences: What was accepted and should be known, a line each: sequences or
            frames that are on one side only, masks that were resized.
    """

    scores: tuple[protocol.SequenceScore, ...]
    differences: tuple[str, ...]


def check_folder(
    masks: MaskFolder, data: ConfigDict, clips: Sequence[Clip], partial: bool = False
) -> tuple[str, ...]:
    """Look at every mask that will be scored before any is.

    Args:
        masks: The folder.
        data: The data set, `config.data`.
        clips: The clips to score.
        partial: Whether missing masks are accepted.

    Returns:
        One line a difference that was accepted; see `mask_folders.check_complete`.

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
    differences = mask_folders.check_complete(masks, expected, partial)
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
    return differences


def score_folder(
    masks: MaskFolder,
    data: ConfigDict,
    clips: Sequence[Clip],
    partial: bool = False,
    boundary: bool = True,
) -> FolderScore:
    """Score the annotated frames of the clips.

    Args:
        masks: The folder; see `mask_folders.open_masks`.
        data: The data set, `config.data`.
        clips: The clips to score; those without annotations are passed over.
        partial: Whether to score what is there when masks are missing.
        boundary: False leaves F out.

    Raises:
        UserError: As `check_folder`, or if a mask contradicts the folder's encoding.
    """
    differences = check_folder(masks, data, clips, partial)
    there = [clip for clip in clips if _expected(data, [clip])]
    there = [clip for clip in there if clip.name in masks.files]
    scores, notes = [], _Notes()
    label = f"scoring {masks.root.name}"
    for clip in progress(there, len(there), label, "clip"):
        pairs = notes.watch(_pairs(masks, data, clip), masks, clip)
        scores.append(
            protocol.score_sequence(clip.name, len(clip.frames), pairs, boundary)
        )
    return FolderScore(tuple(scores), (*differences, *notes.lines()))


def _expected(data: ConfigDict, clips: Sequence[Clip]) -> dict[str, list[str]]:
    """Return the names of the annotated frames of each annotated clip."""
    truth = {clip.name: annotations.annotated_frames(data, clip) for clip in clips}
    return {
        clip.name: [clip.frames[t].name for t in sorted(truth[clip.name])]
        for clip in clips
        if truth[clip.name]
    }


def _pairs(
    masks: MaskFolder, data: ConfigDict, clip: Clip
) -> Iterator[protocol.FramePair]:
    """Read a clip's masks beside their annotations; what is missing is passed over."""
    for t, annotation in annotations.annotated_frames(data, clip).items():
        name = clip.frames[t].name
        if masks.find(clip.name, name) is None:
            continue  # `check_complete` listed it, and was told to go on
        truth = annotations.read_truth(annotation)
        size = (truth.foreground.shape[0], truth.foreground.shape[1])
        mask = masks.read(clip.name, name, size)
        yield protocol.FramePair(t, mask, truth.foreground, truth.void)


class _Notes:
    """Counts what is odd about masks while they are scored."""

    def __init__(self) -> None:
        self._sizes: dict[tuple[int, int], int] = {}
        self._example = ""
        self._overlap: list[tuple[float, float]] = []

    def watch(
        self, pairs: Iterator[protocol.FramePair], masks: MaskFolder, clip: Clip
    ) -> Iterator[protocol.FramePair]:
        """Pass pairs on."""
        for pair in pairs:
            stored = masks.stored_size(clip.name, clip.frames[pair.index].name)
            if stored != pair.truth.shape:
                self._sizes[stored] = self._sizes.get(stored, 0) + 1
                self._example = f"{stored} to {pair.truth.shape}"
            self._overlap.append(
                (
                    metrics.jaccard(pair.prediction, pair.truth),
                    metrics.jaccard(~pair.prediction, pair.truth),
                )
            )
            yield pair

    def lines(self) -> Iterator[str]:
        """Say what was odd."""
        if self._sizes:
            count = sum(self._sizes.values())
            yield f"{count} mask(s) resized to their annotation, e.g. {self._example}"
        if not self._overlap:
            return
        plain, complement = np.mean(self._overlap, axis=0)
        if complement > plain + INVERTED:
            yield (
                f"J is {100 * plain:.1f} and that of the complement "
                f"{100 * complement:.1f}: is this the background's channel?"
            )
