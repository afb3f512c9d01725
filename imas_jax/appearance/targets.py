"""Stage-2 targets, paper Sec. 3.3, equations 7 and 12: made once, between the stages.

Every training frame's object mask is refined by the CRF and, if asked for, limited by
the semantic constraint. A sequence is one file that carries what it was made from;
finished sequences are not made again, and those made from anything else are never
used.
"""

import collections
import dataclasses
import itertools
import json
import zipfile
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, Literal

import cv2
import numpy as np
from absl import logging
from jaxtyping import Float, UInt8

from imas_jax import files
from imas_jax.appearance import crf, cuts, semantic
from imas_jax.errors import UserError

Resolution = Literal["mask", "frame"]

# Raise it when the same recipe gives other targets than before.
_VERSION = 2
Provenance = Mapping[str, Any]


@dataclasses.dataclass(frozen=True)
class SequenceStatistics:
    """What happened to the masks of one sequence.

    Attributes:
        frames: Number of frames.
        changed_by_crf: Share of pixels whose label differs from the unary term's.
        changed_by_constraint: Share of pixels the constraint removed.
        discarded: Frames whose match was too large, so that the constraint was dropped.
        empty: Frames with an empty target.
    """

    frames: int
    changed_by_crf: float
    changed_by_constraint: float
    discarded: int
    empty: int


Constraint = semantic.SemanticConstraint | cuts.CutConstraint | None


@dataclasses.dataclass(frozen=True)
class TargetRecipe:
    """How a soft mask becomes a target.

    Attributes:
        preset: The CRF.
        resolution: Where the CRF runs: "mask" resizes the frame to the mask (paper),
            "frame" the mask to the frame and averages the result back. The constraint
            compares at the mask's size either way.
        constraint: Equation 12, RCF's cut, or None (IMAS-LR).
        solver: What computes the CRF's mean field.
    """

    preset: crf.CrfPreset
    resolution: Resolution = "mask"
    constraint: Constraint = None
    solver: crf.Solver = "lattice"


@dataclasses.dataclass(frozen=True)
class MaskSequence:
    """One sequence as targets are made from it; drawn only if it is to be made.

    Attributes:
        name: Its name, unique.
        frames: Its frames, uint8 RGB `(h, w, 3)`, in order.
        masks: The object's soft masks `(hm, wm)` in [0, 1], one a frame.
    """

    name: str
    frames: Iterable[np.ndarray]
    masks: Iterable[np.ndarray]


@dataclasses.dataclass(frozen=True)
class TargetSummary:
    """All targets of a run.

    Attributes:
        provenance: What all of them were made from.
        sequences: Statistics by sequence name, in the order given.
        reused: Sequences that were finished before.
    """

    provenance: Provenance
    sequences: Mapping[str, SequenceStatistics]
    reused: tuple[str, ...]

    def total(self) -> SequenceStatistics:
        """Sum up over sequences; shares are means over frames."""
        parts = list(self.sequences.values())
        frames = sum(part.frames for part in parts)
        return SequenceStatistics(
            frames,
            sum(part.changed_by_crf * part.frames for part in parts) / frames,
            sum(part.changed_by_constraint * part.frames for part in parts) / frames,
            sum(part.discarded for part in parts),
            sum(part.empty for part in parts),
        )

    def to_json(self) -> dict[str, Any]:
        """Return the summary as plain values for result.json."""
        return {
            "provenance": dict(self.provenance),
            "total": dataclasses.asdict(self.total()),
            "sequences": {
                name: dataclasses.asdict(part) for name, part in self.sequences.items()
            },
            "reused": list(self.reused),
        }


def make_targets(
    folder: Path,
    sequences: Iterable[MaskSequence],
    source: Provenance,
    recipe: TargetRecipe,
    workers: int = 0,
    shown: Callable[[Iterator[Any]], Iterator[Any]] = iter,
) -> TargetSummary:
    """Make the targets that are missing or made from something else.

    Args:
        folder: Gets one `<sequence>.npz` each, at mask resolution.
        sequences: The training sequences; finished ones are not drawn from.
        source: Where the masks come from, plain values: checkpoint digest, object
            channels, whatever else decides them.
        recipe: What is done to the masks.
        workers: Of the CRF, as `crf.refine_many` takes them.
        shown: Passes on a step a frame, and shows how far the work is.

    Raises:
        UserError: If a mask is not usable.
    """
    provenance = full_provenance(source, recipe)
    found: dict[str, SequenceStatistics] = {}
    reused: list[str] = []

    def draw() -> Iterator[_Job]:
        for sequence in sequences:
            finished = read_finished(folder, sequence.name, provenance)
            if finished is not None:
                found[sequence.name] = finished
                reused.append(sequence.name)
                continue
            found[sequence.name] = SequenceStatistics(0, 0.0, 0.0, 0, 0)  # its place
            for frame, mask in zip(sequence.frames, sequence.masks, strict=True):
                yield _Job(sequence.name, frame, np.asarray(mask, np.float32))

    made = _refine(draw(), recipe, workers)

    def written() -> Iterator[None]:
        for name, group in itertools.groupby(made, key=lambda one: one[0].sequence):
            outcomes = []
            for one in group:
                outcomes.append(_finish(*one, recipe))
                yield
            found[name] = told = _summarize(outcomes)
            _write(folder, name, [o.target for o in outcomes], told, provenance)
            text = "targets of %s: %d frames, CRF changed %.1f %% of the pixels"
            logging.info(text, name, told.frames, 100 * told.changed_by_crf)

    collections.deque(shown(written()), maxlen=0)
    return TargetSummary(provenance, found, tuple(reused))


def refine_batch(
    frames: UInt8[np.ndarray, "b 2 h w 3"],
    masks: Float[np.ndarray, "b 2 hm wm"],
    recipe: TargetRecipe,
    workers: int = 0,
) -> UInt8[np.ndarray, "b 2 hm wm"]:
    """Make the targets of a batch at mask resolution, without a constraint.

    Args:
        frames: Frame pairs.
        masks: The object's soft masks of them, in [0, 1].
        recipe: Its CRF is used.
        workers: As `crf.refine_many` takes them.
    """
    size = masks.shape[2:]
    pairs = (
        _meet(frame, mask, "mask")
        for frame, mask in zip(
            frames.reshape(-1, *frames.shape[2:]), masks.reshape(-1, *size), strict=True
        )
    )
    results = crf.refine_many(pairs, recipe.preset, workers, recipe.solver)
    made = np.stack([result.mask for result in results])
    return (made.astype(np.uint8) * np.uint8(255)).reshape(masks.shape)


def full_provenance(source: Provenance, recipe: TargetRecipe) -> dict[str, Any]:
    """Say everything that decides the targets, in plain values."""
    constraint = recipe.constraint
    told = {
        **source,
        "version": _VERSION,
        "crf": {**dataclasses.asdict(recipe.preset), "solver": recipe.solver},
        "resolution": recipe.resolution,
        "constraint": constraint and constraint.told(),
    }
    return plain(told)


@dataclasses.dataclass(frozen=True)
class _Job:
    sequence: str
    frame: np.ndarray
    mask: np.ndarray


# The mask whose cut was improved, or what the semantic constraint compares.
_More = crf.CrfResult | np.ndarray | None


@dataclasses.dataclass(frozen=True)
class _Outcome:
    target: np.ndarray
    changed_by_crf: float
    changed_by_constraint: float
    discarded: bool


def _refine(
    jobs: Iterator[_Job], recipe: TargetRecipe, workers: int
) -> Iterator[tuple[_Job, crf.CrfResult, _More]]:
    """Run the CRF on all masks, and again where their cut is to be improved."""
    preset, solver, constraint = recipe.preset, recipe.solver, recipe.constraint
    jobs, first, second, shown = itertools.tee(jobs, 4)
    met: Iterator[Any] = (_meet(j.frame, j.mask, recipe.resolution) for j in first)
    more: Iterator[_More] = itertools.repeat(None)
    if constraint is None:
        del second, shown  # they would hold every frame
    else:
        more = seen = constraint.features(job.frame for job in shown)
    if isinstance(constraint, cuts.CutConstraint):
        met, again = itertools.tee(met)
        improved = (
            (frame, constraint.refined(features, job.mask, mask.shape))
            for job, (frame, mask), features in zip(second, again, seen, strict=True)
        )
        stretched = dataclasses.replace(preset, stretch=constraint.stretch)
        more = crf.refine_many(improved, stretched, workers, solver)
    elif constraint is not None:
        del second
    single = crf.refine_many(met, preset, workers, solver)
    yield from zip(jobs, single, more, strict=False)


def _meet(
    frame: np.ndarray, mask: np.ndarray, resolution: Resolution
) -> tuple[np.ndarray, np.ndarray]:
    """Bring a frame and its mask to the size the CRF runs at."""
    if resolution == "frame":
        return frame, semantic.resize(mask[..., None], frame.shape[:2])[..., 0]
    # Averaging: a shrunken frame without antialias has edges where the scene has none.
    size = mask.shape[::-1]
    return cv2.resize(frame, size, interpolation=cv2.INTER_AREA), mask


def _finish(
    job: _Job,
    result: crf.CrfResult,
    more: _More,
    recipe: TargetRecipe,
) -> _Outcome:
    """Bring one refined mask to mask resolution, constrained there or before."""
    _, soft = _meet(job.frame, job.mask, recipe.resolution)
    before = crf.foreground_probability(soft, recipe.preset) > 0.5
    constraint = recipe.constraint
    refined = _shrink(result.mask, job.mask.shape)
    kept = semantic.Constrained(refined, discarded=False)
    if isinstance(constraint, cuts.CutConstraint):
        assert isinstance(more, crf.CrfResult)
        both = constraint.agree(result.mask, more.mask)
        kept = dataclasses.replace(both, mask=_shrink(both.mask, job.mask.shape))
    elif constraint is not None:
        assert isinstance(more, np.ndarray)
        similar = semantic.mask_similarity(more, job.mask[..., None])[..., 0]
        match = similar > constraint.threshold
        kept = semantic.constrain(refined, match, constraint.dilation)
    return _Outcome(
        kept.mask,
        float(np.mean(before != result.mask)),
        float(np.mean(refined - kept.mask) / 255),
        kept.discarded,
    )


def _shrink(mask: np.ndarray, shape: tuple[int, ...]) -> UInt8[np.ndarray, "h w"]:
    grey = mask.astype(np.uint8) * np.uint8(255)
    return cv2.resize(grey, shape[::-1], interpolation=cv2.INTER_AREA)


def _summarize(outcomes: list[_Outcome]) -> SequenceStatistics:
    return SequenceStatistics(
        len(outcomes),
        float(np.mean([outcome.changed_by_crf for outcome in outcomes])),
        float(np.mean([outcome.changed_by_constraint for outcome in outcomes])),
        sum(outcome.discarded for outcome in outcomes),
        sum(not outcome.target.any() for outcome in outcomes),
    )


def read(
    folder: Path, name: str, provenance: Provenance | None = None
) -> UInt8[np.ndarray, "t h w"]:
    """Read one sequence's targets, 0..255 for [0, 1].

    Args:
        folder: As given to `make_targets`.
        name: Sequence.
        provenance: What they must have been made from (`full_provenance`);
            None takes what is there.

    Raises:
        UserError: If they are missing, unreadable, or made from something else.
    """
    file = _file(folder, name)
    try:
        stored = files.read_npz(file)
        target, told = stored["target"], json.loads(str(stored["provenance"]))
    except (OSError, KeyError, ValueError, zipfile.BadZipFile) as error:
        raise UserError(
            f"no usable targets of {name} at {file} ({error})",
            "a file written by stage align",
            "run --config.stage=align again",
        ) from error
    if provenance is not None and told != plain(provenance):
        different = [key for key in told if told[key] != plain(provenance).get(key)]
        raise UserError(
            f"targets of {name} were made from something else: {', '.join(different)}",
            "targets of this run's checkpoint, channels and settings",
            "run --config.stage=align again",
        )
    return target


def read_finished(
    folder: Path, name: str, provenance: Provenance
) -> SequenceStatistics | None:
    """Return the statistics of targets made from the same, else None."""
    file = _file(folder, name)
    if not file.exists():
        return None
    try:
        stored = files.read_npz(file)
        told = json.loads(str(stored["provenance"]))
        statistics = json.loads(str(stored["statistics"]))
    except (OSError, KeyError, ValueError, zipfile.BadZipFile) as error:
        logging.warning("%s is not readable (%s): made again", file, error)
        return None
    if told != plain(provenance):
        logging.info("%s was made from something else: made again", file)
        return None
    return SequenceStatistics(**statistics)


def _write(
    folder: Path,
    name: str,
    targets: list[np.ndarray],
    statistics: SequenceStatistics,
    provenance: Provenance,
) -> None:
    """Write aside, then rename: a file that exists is complete."""
    with files.aside(_file(folder, name)) as draft:
        np.savez_compressed(
            draft,
            target=np.stack(targets),
            provenance=json.dumps(plain(provenance)),
            statistics=json.dumps(dataclasses.asdict(statistics)),
        )


def plain(values: Provenance) -> dict[str, Any]:
    """Bring values to the form they have after a trip through a file."""
    return json.loads(json.dumps(dict(values)))


def _file(folder: Path, name: str) -> Path:
    return folder / f"{name}.npz"
