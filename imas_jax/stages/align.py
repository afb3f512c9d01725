"""Which channel is the object (paper Sec. 3.4), without annotations.

Writes the stage-1 soft masks of every frame, then lets a judge score the channels:
`motion` compares with the motion evidence, `semantic` with the mask's own match
in frozen features (equation 13), `both` is their mean; `cut` asks how cheaply a mask is
cut out of these features (RCF).
"""

import functools
import itertools
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Bool
from ml_collections import ConfigDict

from imas_jax.appearance import alignment
from imas_jax.data.clips import Clip, pair_of_frame
from imas_jax.errors import UserError
from imas_jax.flow import estimators, motion
from imas_jax.runs.run import Output, Run
from imas_jax.stages import (
    features,
    inputs,
    network,
    shares,
    soft_masks,
    supervision,
)
from imas_jax.stages import motion as stage_motion
from imas_jax.stages.predictor import to_frame

SOFT = "soft"
# (clip, frame index) and, in the same order, candidates at the clip's frame size ->
# their scores.
Places = Sequence[tuple[Clip, int]]
Judge = Callable[
    [Places, Iterable[alignment.CandidateMasks]], Iterator[alignment.FrameScores]
]
Seeing = Callable[[alignment.CandidateMasks, np.ndarray, float], alignment.FrameScores]
Moving = Callable[[Clip, int], Bool[np.ndarray, "h w"]]

PARTS: dict[str, tuple[str, ...]] = {
    "motion": ("motion",),
    "semantic": ("semantic",),
    "both": ("motion", "semantic"),
    "cut": ("cut",),
}
# Parts that look at frozen features, and how.
SEEING: dict[str, Seeing] = {
    "semantic": alignment.judge_by_features,
    "cut": alignment.judge_side_of_cut,
}


def work(run: Run) -> Output:
    """Choose the object's channels."""
    clips, share = inputs.training_clips(run), shares.every()
    folder = run.workdir / "align" / SOFT
    write_soft_masks(run, folder, clips, share)
    choice = choose(run, folder, clips, share)
    stage_1 = run.result("discover")["identity"]
    return Output(
        identity=f"{stage_1[:16]}-{'+'.join(map(str, choice.channels))}",
        values=choice.to_json() | {supervision.NOTED: supervised(run.config)},
    )


def supervised(config: ConfigDict) -> list[str]:
    """Say what the judge owes to weights from human labels."""
    if not looks(config.align.score):
        return []
    return supervision.of_features(config, features.kind_of(config))


def looks(score: str) -> bool:
    """Tell whether a judge looks at frozen features."""
    return bool(SEEING.keys() & PARTS.get(score, ()))


def write_soft_masks(
    run: Run, folder: Path, clips: tuple[Clip, ...], share: shares.Share
) -> None:
    """Predict every frame of this process's clips with the stage-1 network."""
    masks_of = predicted(run, "discover")
    soft_masks.write_all(folder, share.of(clips), masks_of, share=share)


def predicted(run: Run, stage: str) -> soft_masks.MasksOf:
    """Return what predicts clips: a stage's network, or what stands in its place."""
    if stage_motion.alone(run.config):
        return stage_motion.as_soft_masks(run)
    state = network.final_state(run.config, run.folder(stage), stage)
    predictor = network.predictor(run.config, run.workdir, state.best_variables)
    return soft_masks.predicted(predictor.of_clips)


def choose(
    run: Run,
    folder: Path,
    clips: tuple[Clip, ...],
    share: shares.Share = shares.ALONE,
) -> alignment.Alignment:
    """Score all candidates on the judged frames and take the best.

    Processes that share the clips all come to the same choice.
    """
    config = run.config
    judge = make_judge(run, moving_from_files(run))
    candidates = alignment.list_candidates(config.model.channels, config.align.largest)
    if config.discover.motion_weight == 0:
        # Only what the evidence pulled at can be the object: nothing is left to judge.
        candidates = ((stage_motion.GUIDED,),)
    places = [(c, t) for c in share.of(clips) for t in judged_frames(run, c)]

    def masks() -> Iterator[alignment.CandidateMasks]:
        for clip, group in itertools.groupby(places, key=lambda place: place[0]):
            soft = soft_masks.read(folder, clip)
            for _, t in group:
                whole = to_frame(soft[t].astype(np.float32), clip.size)
                yield alignment.candidate_masks(whole, candidates)

    judged = judge(places, masks())
    found = share.progress(judged, len(places), "judging channels", "frame")
    own: dict[str, list[dict[str, Any]]] = {}
    for (clip, _), scores in zip(places, found, strict=True):
        own.setdefault(clip.name, []).append(scores.to_json())
    every = share.join(own)
    told = {
        clip.name: list(map(alignment.FrameScores.from_json, every[clip.name]))
        for clip in clips
    }
    return alignment.choose(config.align.score, candidates, told)


def make_judge(run: Run, moving: Moving) -> Judge:
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
    see = features.judging(run) if looks(config.score) else None
    theta = features.threshold(run.config, features.kind_of(run.config))

    def judge(
        places: Places, candidates: Iterable[alignment.CandidateMasks]
    ) -> Iterator[alignment.FrameScores]:
        frames = (clip.read(t) for clip, t in places)
        seen = itertools.repeat(None) if see is None else see.each(frames)
        for (clip, t), masks, found in zip(places, candidates, seen, strict=False):
            parts = []
            if "motion" in wanted:
                parts.append(alignment.judge_by_motion(masks, moving(clip, t)))
            if found is not None:
                parts += [SEEING[p](masks, found, theta) for p in wanted if p in SEEING]
            yield alignment.mean_scores(parts)

    return judge


def judged_frames(run: Run, clip: Clip) -> list[int]:
    """Return the frames that are scored: those that move, so no shot of one frame."""
    gap = run.config.flow.gaps[0]
    every = range(len(clip.frames))
    moving = [t for t in every if pair_of_frame(clip, t, gap)] or [0]
    return moving if run.config.align.judged == "all" else moving[:1]


def moving_from_files(run: Run) -> Moving:
    """Read the motion evidence of the run's clips, one clip at a time."""

    @functools.lru_cache(maxsize=1)
    def of(clip: Clip) -> list[Bool[np.ndarray, "h w"]]:
        return [one > stage_motion.SURE for one in stage_motion.of_clip(run, clip)]

    return lambda clip, t: of(clip)[t]


def moving_from_frames(run: Run) -> Moving:
    """Compute the motion baseline from two frames, where no flow was stored."""
    estimate = estimators.make_estimator(run.config.flow)

    def moving(clip: Clip, t: int) -> Bool[np.ndarray, "h w"]:
        # The last frame starts no pair: it takes its flow to the one before.
        other = t + 1 if t + 1 < len(clip.frames) else t - 1
        flow, _ = estimate(clip.read(t), clip.read(other))
        return motion.motion_mask(flow, motion.fit_background(flow))

    return moving
