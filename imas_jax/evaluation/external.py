"""Scores any folder of masks against a data set: no run, no network, any method.

Masks are read one at a time at the size of their annotation, so the same folder gives
the same numbers bit for bit.
"""

import dataclasses
from collections.abc import Iterator, Sequence

from ml_collections import ConfigDict

from imas_jax import errors
from imas_jax.data import annotations
from imas_jax.data.clips import Clip
from imas_jax.evaluation import protocol
from imas_jax.evaluation.mask_folders import MaskFolder, check_complete


@dataclasses.dataclass(frozen=True)
class FolderScore:
    """What a folder of masks scored.

    Attributes:
        scores: One a sequence.
        differences: One line for each sequence or frame that is on one side only.
    """

    scores: tuple[protocol.SequenceScore, ...]
    differences: tuple[str, ...]


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
        UserError: If no clip is annotated, masks are missing (all are listed), or one
            cannot be read.
    """
    truth = {clip.name: annotations.annotated_frames(data, clip) for clip in clips}
    annotated = [clip for clip in clips if truth[clip.name]]
    if not annotated:
        raise errors.UserError(
            f"none of {len(clips)} sequences at {data.root} is annotated",
            "annotations to score against",
            "give the whole data set with data.root, or another evaluate.split",
        )
    expected = {
        clip.name: [clip.frames[t].name for t in sorted(truth[clip.name])]
        for clip in annotated
    }
    differences = check_complete(masks, expected, partial)

    def pairs(clip: Clip) -> Iterator[protocol.FramePair]:
        for t, annotation in truth[clip.name].items():
            name = clip.frames[t].name
            if masks.find(clip.name, name) is None:
                continue  # `check_complete` listed it, and was told to go on
            target = annotations.read_annotation(annotation)
            size = (target.shape[0], target.shape[1])
            yield protocol.FramePair(t, masks.read(clip.name, name, size), target)

    scores = tuple(
        protocol.score_sequence(clip.name, len(clip.frames), pairs(clip), boundary)
        for clip in annotated
        if clip.name in masks.files
    )
    return FolderScore(scores, differences)
