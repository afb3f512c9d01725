"""Which channel is the object (paper Sec. 3.4), without annotations.

Writes the stage-1 soft masks of every frame, then lets a judge score the channels.
"""

from collections.abc import Callable
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

# (clip, frame index, soft masks (hm, wm, c)) -> scores of all candidates.
Judge = Callable[[Clip, int, np.ndarray], alignment.FrameScores]


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
    if config.score not in JUDGES or config.judged not in ("first", "all"):
        raise UserError(
            f"align.score = {config.score!r}, align.judged = {config.judged!r}",
            f"score {', '.join(JUDGES)}; judged first or all",
            "correct the field",
        )
    judges = [make(run) for make in JUDGES[config.score]]
    scores = {}
    for clip in clips:
        soft = masks.read(folder, clip)
        count = len(clip.frames) if config.judged == "all" else 1
        scores[clip.name] = [
            alignment.mean_scores(
                [judge(clip, t, soft[t].astype(np.float32)) for judge in judges]
            )
            for t in range(count)
        ]
    return alignment.choose(config.score, _candidates(run), scores)


def _by_motion(run: Run) -> Judge:
    flow, gap, candidates = inputs.flow(run), run.config.flow.gaps[0], _candidates(run)

    def judge(clip: Clip, t: int, soft: np.ndarray) -> alignment.FrameScores:
        moving = motion_masks.read(flow, clip, t, gap)
        whole = to_frame(soft, clip.size)
        return alignment.judge_by_motion(
            alignment.candidate_masks(whole, candidates), moving
        )

    return judge


def _by_features(run: Run) -> Judge:
    see, threshold = features.judging(run), run.config.align.threshold
    candidates = _candidates(run)

    def judge(clip: Clip, t: int, soft: np.ndarray) -> alignment.FrameScores:
        found = alignment.candidate_masks(soft, candidates)
        return alignment.judge_by_features(found, see(clip.read(t)), threshold)

    return judge


def _candidates(run: Run) -> tuple[alignment.Candidate, ...]:
    config = run.config
    return alignment.list_candidates(config.model.channels, config.align.largest)


JUDGES = {
    "motion": (_by_motion,),
    "semantic": (_by_features,),
    "both": (_by_motion, _by_features),
}
