"""Which channel is the object (paper Sec. 3.4), without annotations.

Writes the stage-1 soft masks of every frame, then lets a judge score the channels.
"""

from pathlib import Path

import numpy as np
from absl import logging

from imas_jax import alignment
from imas_jax.data.clips import Clip
from imas_jax.predict import Predictor, to_frame
from imas_jax.stages import inputs, judges, masks, network
from imas_jax.stages.run import Output, Run

SOFT = "soft"


def work(run: Run) -> Output:
    """Choose the object's channels."""
    clips = inputs.training_clips(run.config)
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
    config = run.config
    judge = judges.make(run, judges.moving_from_files(run))
    candidates = alignment.list_candidates(config.model.channels, config.align.largest)
    scores = {}
    for clip in clips:
        soft = masks.read(folder, clip)
        scores[clip.name] = [
            judge(
                clip,
                t,
                alignment.candidate_masks(
                    to_frame(soft[t].astype(np.float32), clip.size), candidates
                ),
            )
            for t in judges.judged_frames(run, clip)
        ]
    return alignment.choose(config.align.score, candidates, scores)
