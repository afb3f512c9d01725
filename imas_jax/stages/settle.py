"""Looks at the clips and settles what a config leaves open, saying why.

Runs before any stage. Looking is quick: frames are counted, and where flow is to be
computed eight pairs are estimated on small frames.
"""

import itertools
from collections.abc import Iterator, Sequence

import cv2
import numpy as np
from absl import logging
from jaxtyping import UInt8
from ml_collections import ConfigDict

from imas_jax.data import choices
from imas_jax.data.clips import Clip
from imas_jax.flow import estimators, motion
from imas_jax.stages import inputs
from imas_jax.stages.run import TRAINED

SAMPLES = 8  # places in all clips together where motion is measured
FASTEST = 99  # percentile of pixels: a small object moves too


def settle(config: ConfigDict) -> ConfigDict:
    """Return the config with nothing open; every choice is logged with its reason.

    Raises:
        UserError: If the clips cannot be found or read.
    """
    wanted = choices.open_fields(config)
    if not wanted or config.stage == "each":  # which settles clip by clip
        return config
    clips = inputs.clips(config)
    counts = tuple(len(clip.frames) for clip in clips)
    for clip in clips:
        if len(clip.frames) < choices.SHORT:
            logging.warning(
                "%s has %d frames: little to learn from, masks may be poor",
                clip.name,
                len(clip.frames),
            )
    trains = not config.restore or config.stage in TRAINED
    moves = measure_motion(clips) if "flow.gaps" in wanted and trains else {}
    sizes = tuple(clip.native_size for clip in clips)
    if trains and len(clips) > 1 and not config.model.weights:
        logging.info(
            "one network learns %d clips from scratch; a network for each finds more "
            "where they show unlike things: --config.stage=each",
            len(clips),
        )
    facts = choices.Facts(counts, sizes, moves, trains)
    found = choices.choose(config, facts)
    told = [c for c in found if trains or c.field == "data.size"]
    for reason, group in itertools.groupby(told, key=lambda choice: choice.reason):
        values = ", ".join(f"{choice.field} = {choice.value}" for choice in group)
        logging.info("%s (%s)", values, reason)
    return choices.settle(config, found)


def measure_motion(clips: Sequence[Clip]) -> dict[int, float]:
    """Return how far the fastest pixels move against the camera, by gap.

    Wider gaps are tried where neighbours hardly move, as far as a quarter of the
    shortest clip.
    """
    strips = [s for clip in clips[:SAMPLES] for s in _strips(clip, len(clips))]
    estimate, found = estimators.Estimator(estimators.Dis()), {}
    for place, gap in enumerate(choices.GAPS, start=1):
        moved = [_moved(estimate, s[0], s[place]) for s in strips if len(s) > place]
        if len(moved) < len(strips):
            break
        found[gap] = float(np.median(moved))
        if found[1] >= choices.SLOW:
            break
    return found


def _strips(clip: Clip, clips: int) -> Iterator[list[UInt8[np.ndarray, "_ _ 3"]]]:
    """Yield small frames t, t + 1, t + 2, t + 4, ... of some places, in order."""
    count = len(clip.frames)
    gaps = [gap for gap in choices.GAPS if gap <= max((count - 1) // 4, 1)]
    last = count - 1 - gaps[-1]
    places = max(SAMPLES // clips, 1)
    starts = np.unique(np.linspace(0, last, places).round().astype(int))
    read = {t + gap for t in starts for gap in (0, *gaps)}
    small = {t: _shrink(clip.read(int(t))) for t in sorted(read)}
    for t in starts:
        yield [small[t + gap] for gap in (0, *gaps)]


def _shrink(frame: np.ndarray) -> np.ndarray:
    h, w = frame.shape[:2]
    scale = choices.MEASURED_AT / min(h, w)
    size = (max(round(w * scale), 16), max(round(h * scale), 16))
    return cv2.resize(frame, size, interpolation=cv2.INTER_AREA)


def _moved(
    estimate: estimators.Estimator, first: np.ndarray, second: np.ndarray
) -> float:
    flow, _ = estimate(first, second)
    magnitude = motion.motion_magnitude(flow, motion.fit_background(flow))
    return float(np.percentile(magnitude, FASTEST))
