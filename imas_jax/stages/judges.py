"""Judges: they score candidate masks of one frame without annotations.

`motion` compares with the motion baseline's mask, `semantic` with the mask's own match
in frozen features (equation 13), `both` is their mean.
"""

from collections.abc import Callable

import numpy as np
from jaxtyping import Bool

from imas_jax import alignment
from imas_jax.data.clips import Clip, pair_of_frame
from imas_jax.errors import UserError
from imas_jax.flow import estimators, motion
from imas_jax.stages import features, inputs, motion_masks
from imas_jax.stages.run import Run

# (clip, frame index, candidates at the clip's frame size) -> their scores.
Judge = Callable[[Clip, int, alignment.CandidateMasks], alignment.FrameScores]
Moving = Callable[[Clip, int], Bool[np.ndarray, "h w"]]

PARTS: dict[str, tuple[str, ...]] = {
    "motion": ("motion",),
    "semantic": ("semantic",),
    "both": ("motion", "semantic"),
}


def make(run: Run, moving: Moving) -> Judge:
    """Build the judge that `align.score` names.

    Args:
        run: Its config's `align` says score, features and threshold.
        moving: Gives the motion baseline's mask of a frame.

    Raises:
        UserError: If score or features are not known.
    """
    config = run.config.align
    if config.score not in PARTS or config.judged not in ("first", "all"):
        raise UserError(
            f"align.score = {config.score!r}, align.judged = {config.judged!r}",
            f"score {', '.join(PARTS)}; judged first or all",
            "correct the field",
        )
    wanted = PARTS[config.score]
    see = features.judging(run) if "semantic" in wanted else None
    theta = features.threshold(run.config, features.kind_of(run.config))

    def judge(
        clip: Clip, t: int, masks: alignment.CandidateMasks
    ) -> alignment.FrameScores:
        parts = []
        if "motion" in wanted:
            parts.append(alignment.judge_by_motion(masks, moving(clip, t)))
        if see is not None:
            seen = see(clip.read(t))
            parts.append(alignment.judge_by_features(masks, seen, theta))
        return alignment.mean_scores(parts)

    return judge


def judged_frames(run: Run, clip: Clip) -> list[int]:
    """Return the frames that are scored: those that move, so no shot of one frame."""
    gap = run.config.flow.gaps[0]
    every = range(len(clip.frames))
    moving = [t for t in every if pair_of_frame(clip, t, gap)] or [0]
    return moving if run.config.align.judged == "all" else moving[:1]


def moving_from_files(run: Run) -> Moving:
    """Read the motion baseline off the run's flow files."""
    flow, gap = inputs.flow(run), run.config.flow.gaps[0]
    return lambda clip, t: motion_masks.read(flow, clip, t, gap)


def moving_from_frames(run: Run) -> Moving:
    """Compute the motion baseline from two frames, where no flow was stored."""
    estimate = estimators.make_estimator(run.config.flow)

    def moving(clip: Clip, t: int) -> Bool[np.ndarray, "h w"]:
        # The last frame starts no pair: it takes its flow to the one before.
        other = t + 1 if t + 1 < len(clip.frames) else t - 1
        flow, _ = estimate(clip.read(t), clip.read(other))
        return motion.motion_mask(flow, motion.fit_background(flow))

    return moving
