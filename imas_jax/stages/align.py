"""Which channel is the object (paper Sec. 3.4), without annotations.

Writes the stage-1 soft masks of every frame, then lets a judge score the channels.
"""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
from absl import logging

from imas_jax import alignment
from imas_jax.data.clips import Clip
from imas_jax.errors import UserError
from imas_jax.predict import Predictor, to_frame
from imas_jax.stages import features, inputs, masks, motion_masks, network
from imas_jax.stages.run import Output, Run

SOFT = "soft"


def work(run: Run) -> Output:
    """Choose the object's channels."""
    clips = inputs.clips(run.config)
    folder = run.workdir / "align" / SOFT
    write_soft_masks(run, folder, clips)
    choice = choose(run, folder, clips)
    logging.info(
        "object channel %s by the %s judge, scores %s",
        "+".join(map(str, choice.channels)),
        choice.judge,
        np.round(choice.scores, 3).tolist(),
    )
    stage_1 = run.result("discover")["identity"]
    return Output(
        identity=f"{stage_1[:16]}-{'+'.join(map(str, choice.channels))}",
        values=choice.to_json(),
    )


def write_soft_masks(run: Run, folder: Path, clips: tuple[Clip, ...]) -> None:
    """Predict every frame with the stage-1 network."""
    state = network.final_state(run.config, run.folder("discover"), "discover")
    model = network.build_model(run.config)
    predictor = Predictor(model, state.best_variables, run.config.predict)
    masks.write_all(folder, clips, predictor)


def choose(run: Run, folder: Path, clips: tuple[Clip, ...]) -> alignment.Alignment:
    """Score all candidates on the judged frames and take the best."""
    config = run.config.align
    judges = {"motion": _motion_scores, "semantic": _semantic_scores}
    if config.score not in judges or config.frames not in ("first", "all"):
        raise UserError(
            f"align.score = {config.score!r}, align.frames = {config.frames!r}",
            "score motion or semantic; frames first or all",
            "correct the field",
        )
    candidates = alignment.list_candidates(run.config.model.channels, config.largest)
    scores = {
        clip.name: list(judges[config.score](run, folder, clip, candidates))
        for clip in clips
    }
    return alignment.choose(config.score, candidates, scores)


def judged_frames(run: Run, clip: Clip) -> range:
    """Return the frames that are scored."""
    return range(len(clip.frames) if run.config.align.frames == "all" else 1)


def _motion_scores(
    run: Run,
    folder: Path,
    clip: Clip,
    candidates: tuple[alignment.Candidate, ...],
) -> Iterator[alignment.FrameScores]:
    soft, flow = masks.read(folder, clip), inputs.flow(run)
    for t in judged_frames(run, clip):
        moving = motion_masks.read(flow, clip, t, run.config.flow.gaps[0])
        whole = to_frame(soft[t].astype(np.float32), clip.size)
        yield alignment.judge_by_motion(
            alignment.candidate_masks(whole, candidates), moving
        )


def _semantic_scores(
    run: Run,
    folder: Path,
    clip: Clip,
    candidates: tuple[alignment.Candidate, ...],
) -> Iterator[alignment.FrameScores]:
    soft, frozen = masks.read(folder, clip), features.frozen(run.config)
    for t in judged_frames(run, clip):
        found = alignment.candidate_masks(soft[t].astype(np.float32), candidates)
        yield alignment.judge_by_features(
            found, frozen(clip.read(t)), run.config.align.threshold
        )
