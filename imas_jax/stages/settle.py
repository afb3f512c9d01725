"""Looks at the clips and settles what a config leaves open, saying why.

A field left open (-1, or "auto" for the network) is chosen by what the clips are; any
other value stands. Looking runs before any stage and is quick: frames are counted, and
where flow is to be computed eight pairs are estimated on small frames. Choosing is
pure: facts and config in, choices out.

All numbers are ours. An ordinary clip (up to 100 frames, short side up to 480, motion
as in DAVIS, no weights) gets what benchmarks/results/video.md was measured with.
"""

import dataclasses
import itertools
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from absl import logging
from jaxtyping import UInt8
from ml_collections import ConfigDict

from imas_jax.data.clips import Clip
from imas_jax.data.found import Clips
from imas_jax.flow import estimators, motion
from imas_jax.models import named, pretrained
from imas_jax.models.segmenter import BACKBONES
from imas_jax.runs import restoring
from imas_jax.training import parallel

OPEN = (-1, -1.0, "auto")
FIELDS = (
    "data.size",
    "data.frames",
    "flow.gaps",
    "flow.size",
    "model.backbone",
    "model.width",
    "model.head_width",
    "model.head_dilation",
    "model.output_stride",
    "model.trained",
    "discover.steps",
    "discover.learning_rate",
    "refine.steps",
    "refine.learning_rate",
    "predict.short_side",
    "predict.steady",
)

LARGEST = 480  # px of the short side; DAVIS's, beyond which masks gain little
MEASURED_AT = 240  # px of the short side at which `Facts.motion` counts pixels
# The slowest of 30 sequences of DAVIS moves by 1.25 px between frames at that size.
SLOW = 0.75  # px below which flow of neighbours is mostly its own error
ENOUGH = 1.25  # px that a wider gap should reach
GAPS = (1, 2, 4, 8)
ENLARGED = 480  # px of the short side at which DIS finds more than on 240
STEADY = 0.8  # of what neighbours say that a step along DIS's flow leaves
WORTH = 4.0  # px at half a gap up to which the learned evidence gains by that gap
ORDINARY = 100  # frames up to which a clip gets STEPS
STEPS = {"discover": 200, "refine": 80}
# Taught by the evidence a network has less to find, and starts stage 2 less sure.
TAUGHT_STEPS = {"discover": 100, "refine": 60}
TAUGHT_RATE = 1e-3  # of stage 2, from scratch
LONGEST = 500  # frames of a clip to train on: five times an ordinary clip's steps
SHORT = 10  # frames below which a clip is worth a warning

# A small network learns from scratch; a given one has its shape and the paper's rates;
# a head alone starts from scratch, and is light: a processor trains it.
SCRATCH = {
    "model.backbone": "unet",
    "model.width": 16,
    "model.head_width": 32,
    "model.head_dilation": 2,
    "discover.learning_rate": 2e-3,
    "refine.learning_rate": 5e-4,
}
GIVEN = {
    "model.head_width": 256,
    "model.head_dilation": 6,
    "discover.learning_rate": 1e-4,
    "refine.learning_rate": 1e-5,
}
LIGHT = {
    "model.head_width": 64,
    "model.head_dilation": 0,
    "discover.learning_rate": 2e-3,
    "refine.learning_rate": 5e-4,
}
FIRST = "resnet50"  # the paper's
SEEN_AT = 240  # px of the short side at which networks of a fine grid see frames
SEEN_IN_PATCHES = 480  # and those of patches from COARSE px on, if they are frozen
COARSE = 14
SAMPLES = 8  # places in all clips together where motion is measured
FASTEST = 99  # percentile of pixels: a small object moves too


def settle(config: ConfigDict, found: Clips | None = None) -> ConfigDict:
    """Return the config with nothing open; every choice is logged with its reason.

    Args:
        config: The whole config.
        found: Gets the clips that are looked at, for the run that follows.

    Raises:
        UserError: If the clips cannot be found or read.
    """
    wanted = open_fields(config)
    if not wanted or config.stage == "each":  # which settles clip by clip
        return config
    clips = (found or Clips()).find(config.data)
    counts = tuple(len(clip.frames) for clip in clips)
    for clip in clips:
        if len(clip.frames) < SHORT:
            logging.warning(
                "%s has %d frames: little to learn from, masks may be poor",
                clip.name,
                len(clip.frames),
            )
    trains = not restoring.brought_in(config, "refine")
    moves = measure_motion(clips) if "flow.gaps" in wanted and trains else {}
    sizes = tuple(clip.native_size for clip in clips)
    learns = trains and bool(config.discover.steps or config.refine.steps)
    if learns and len(clips) > 1 and not config.model.weights:
        logging.info(
            "one network learns %d clips from scratch; a network for each finds more "
            "where they show unlike things: --config.stage=each",
            len(clips),
        )
    facts = Facts(
        counts, sizes, moves, trains, backbone_of(config), parallel.accelerated()
    )
    chosen = choose(config, facts)
    silent = () if learns else ("model", "discover", "refine", "predict.short_side")
    told = [c for c in chosen if trains or c.field == "data.size"]
    told = [c for c in told if not c.field.startswith(silent)]
    for reason, group in itertools.groupby(told, key=lambda choice: choice.reason):
        values = ", ".join(f"{choice.field} = {choice.value}" for choice in group)
        logging.info("%s (%s)", values, reason)
    return apply(config, chosen)


def outline(config: ConfigDict, clips: Sequence[Clip]) -> ConfigDict:
    """Return the config with nothing open, without reading frames or saying anything.

    Motion is taken for ordinary: good for checks that are not to wait for `settle`.
    """
    facts = Facts(
        tuple(len(clip.frames) for clip in clips),
        tuple(clip.native_size for clip in clips),
        {1: SLOW},
        backbone=backbone_of(config),
        accelerated=parallel.accelerated(),
    )
    return apply(config, choose(config, facts))


def backbone_of(config: ConfigDict) -> str:
    """Tell which backbone the weights are of, if that is open: by name, or by content.

    Raises:
        UserError: If there are no such weights, or they are of no known network.
    """
    weights = config.model.weights
    if not weights or not _is_open(config.model.backbone):
        return ""
    entry = named.entry_of(weights)
    if entry is not None:  # who finds it says that flow is no backbone
        return FIRST if entry.is_flow else entry.network
    if not Path(weights).exists():
        raise named.unknown(weights, "model.weights")
    return pretrained.identify(Path(weights))


def measure_motion(clips: Sequence[Clip]) -> dict[int, float]:
    """Return how far the fastest pixels move against the camera, by gap.

    Wider gaps are tried where neighbours hardly move, as far as a quarter of the
    shortest clip.
    """
    strips = [s for clip in clips[:SAMPLES] for s in _strips(clip, len(clips))]
    estimate, found = estimators.Estimator(estimators.Dis()), {}
    for place, gap in enumerate(GAPS, start=1):
        moved = [_moved(estimate, s[0], s[place]) for s in strips if len(s) > place]
        if len(moved) < len(strips):
            break
        found[gap] = float(np.median(moved))
        if found[1] >= SLOW:
            break
    return found


def _strips(clip: Clip, clips: int) -> Iterator[list[UInt8[np.ndarray, "_ _ 3"]]]:
    """Yield small frames t, t + 1, t + 2, t + 4, ... of some places, in order."""
    count = len(clip.frames)
    gaps = [gap for gap in GAPS if gap <= max((count - 1) // 4, 1)]
    last = count - 1 - gaps[-1]
    places = max(SAMPLES // clips, 1)
    starts = np.unique(np.linspace(0, last, places).round().astype(int))
    read = {t + gap for t in starts for gap in (0, *gaps)}
    small = {t: _shrink(clip.read(int(t))) for t in sorted(read)}
    for t in starts:
        yield [small[t + gap] for gap in (0, *gaps)]


def _shrink(frame: np.ndarray) -> np.ndarray:
    h, w = frame.shape[:2]
    scale = MEASURED_AT / min(h, w)
    size = (max(round(w * scale), 16), max(round(h * scale), 16))
    return cv2.resize(frame, size, interpolation=cv2.INTER_AREA)


def _moved(
    estimate: estimators.Estimator, first: np.ndarray, second: np.ndarray
) -> float:
    flow, _ = estimate(first, second)
    magnitude = motion.motion_magnitude(flow, motion.fit_background(flow))
    return float(np.percentile(magnitude, FASTEST))


@dataclasses.dataclass(frozen=True)
class Facts:
    """What clips are.

    Attributes:
        frames: Number of frames of each clip.
        sizes: (h, w) of each clip.
        motion: By gap, pixels that the fastest hundredth of a frame moves against the
            camera, median over some pairs, at a short side of `MEASURED_AT`.
        trains: Whether anything is trained; a restored network only predicts.
        backbone: What the file of `model.weights` holds, if one is named.
        accelerated: Whether there is an accelerator.
    """

    frames: tuple[int, ...]
    sizes: tuple[tuple[int, int], ...]
    motion: Mapping[int, float] = dataclasses.field(default_factory=dict)
    trains: bool = True
    backbone: str = ""
    accelerated: bool = False


@dataclasses.dataclass(frozen=True)
class Choice:
    """A field, its value, and why."""

    field: str
    value: Any
    reason: str


def open_fields(config: ConfigDict) -> tuple[str, ...]:
    """Return the fields that are left to choose."""
    return tuple(field for field in FIELDS if _is_open(_get(config, field)))


def choose(config: ConfigDict, facts: Facts) -> tuple[Choice, ...]:
    """Choose what is open."""
    wanted = open_fields(config)
    return tuple(choice for choice in _all(config, facts) if choice.field in wanted)


def apply(config: ConfigDict, choices: tuple[Choice, ...]) -> ConfigDict:
    """Return the config with the choices in place."""
    settled = config.copy_and_resolve_references().unlock()
    settled.update_from_flattened_dict({c.field: c.value for c in choices})
    return settled.lock()


def _all(config: ConfigDict, facts: Facts) -> Iterator[Choice]:
    yield _size(facts)
    yield _frames(facts)
    if _is_open(config.flow.gaps):  # else no motion was measured
        yield _gaps(facts, config.motion.evidence == "network")
    yield from _flow(config, facts)
    yield from _network(config, facts)
    taught = config.discover.motion_weight == 0
    most = _get(config, "data.frames")
    most = LONGEST if _is_open(most) else most
    trained = sum(min(count, most or count) for count in facts.frames)
    # In quarters: the length of the schedule is part of the program, and clips of about
    # one length are to share what is compiled for the first.
    factor = round(4 * min(max(trained, ORDINARY), LONGEST) / ORDINARY) / 4
    reason = f"{trained} frames to learn from, at 4 pairs a step"
    for stage, steps in (TAUGHT_STEPS if taught else STEPS).items():
        yield Choice(f"{stage}.steps", round(steps * factor), reason)


def _network(config: ConfigDict, facts: Facts) -> Iterator[Choice]:
    """Choose the network, what of it is trained, and what it sees."""
    weights, trained = config.model.weights, config.model.trained
    backbone = config.model.backbone
    if _is_open(backbone):
        backbone = facts.backbone if weights else SCRATCH["model.backbone"]
    record = BACKBONES[backbone]
    told = f"{weights} is given" if weights else "no weights: learns from scratch"
    if _is_open(trained):
        device = "an" if facts.accelerated else "no"
        why = f"{told}, and there is {device} accelerator" if weights else told
        trained = "heads" if weights and not facts.accelerated else "all"
        yield Choice("model.trained", trained, why)
    values: dict[str, Any] = dict(GIVEN if weights else SCRATCH)
    if trained == "heads":
        values, told = dict(LIGHT), f"{told}: a light head learns from what it sees"
    if config.discover.motion_weight == 0 and (trained == "heads" or not weights):
        values["refine.learning_rate"] = TAUGHT_RATE
    if weights:
        values |= {"model.backbone": backbone, "model.width": record.width}
    values["model.output_stride"] = record.strides[0]
    yield from (Choice(field, value, told) for field, value in values.items())
    stride = record.merge_stride or record.strides[0]
    if trained == "heads" and stride >= COARSE:
        why = f"one mask pixel spans {stride} px"
        yield Choice("predict.short_side", SEEN_IN_PATCHES, why)
    else:
        yield Choice("predict.short_side", SEEN_AT, "as fine as masks have to be")


def worked_on_at(size: tuple[int, int]) -> tuple[int, int]:
    """Return the (h, w) that is worked on of a larger or smaller file's."""
    scale = min(LARGEST / min(size), 1.0)
    return round(size[0] * scale), round(size[1] * scale)


def _size(facts: Facts) -> Choice:
    usual = max(sorted(set(facts.sizes)), key=facts.sizes.count)
    h, w = usual
    if min(usual) > LARGEST:
        usual = worked_on_at(usual)
        reason = f"{w}x{h} is more than is needed; masks are written at {w}x{h}"
    elif len(set(facts.sizes)) > 1:
        reason = "clips of several sizes train together; masks keep each one's own"
    else:
        return Choice("data.size", (0, 0), f"{w}x{h} is worked on as it is")
    return Choice("data.size", usual, reason)


def _frames(facts: Facts) -> Choice:
    longest = max(facts.frames)
    if not facts.trains:
        return Choice("data.frames", 0, "nothing is trained")
    if longest <= LONGEST:
        return Choice("data.frames", 0, f"{longest} frames are few enough to train on")
    reason = f"{longest} frames are much alike; every frame gets a mask all the same"
    return Choice("data.frames", LONGEST, reason)


def _gaps(facts: Facts, several: bool) -> Choice:
    """Choose a gap for the motion loss and, behind it, those the evidence looks at."""
    motion = dict(facts.motion)
    if not facts.trains:
        return Choice("flow.gaps", (1,), "nothing is trained")
    told = ", ".join(f"{value:.2f} px at gap {gap}" for gap, value in motion.items())
    first, reason = 1, f"neighbouring frames move enough ({told})"
    if motion[1] < SLOW:
        wide = [gap for gap, value in motion.items() if value >= ENOUGH]
        first = min(wide, default=1)
        reason = f"slow motion ({told})" if wide else f"no stride moves more ({told})"
    gaps = [first]
    if several:
        longest = (min(facts.frames) - 1) // 4
        gaps += [
            gap
            for gap in GAPS
            if gap != first and (gap == 1 or motion[1] * gap / 2 < WORTH)
            if gap <= max(longest, 1)
        ]
    return Choice("flow.gaps", tuple(gaps), reason)


def _flow(config: ConfigDict, facts: Facts) -> Iterator[Choice]:
    """Choose what the estimator sees, and whether masks are steadied along its flow."""
    estimator = config.flow.estimator
    if estimator != "dis":
        yield Choice("flow.size", 0, f"{estimator} sees frames as they are")
        why = "masks lose along RAFT's flow, for which imported flow is taken"
        yield Choice("predict.steady", 0.0, why)
        return
    size = dis_sees_at(facts.sizes)
    reason = "DIS finds more on enlarged frames" if size else "frames are large enough"
    yield Choice("flow.size", size, reason)
    yield Choice("predict.steady", STEADY, "masks gain along DIS's flow")


def dis_sees_at(sizes: Iterable[tuple[int, int]]) -> int:
    """Return the `flow.size` at which DIS sees frames of these sizes best."""
    return ENLARGED if min(map(min, sizes)) < ENLARGED else 0


def _is_open(value: Any) -> bool:
    if isinstance(value, tuple | list):
        return any(part in OPEN for part in value)
    return value in OPEN


def _get(config: ConfigDict, field: str) -> Any:
    section, name = field.split(".")
    return config[section][name]
