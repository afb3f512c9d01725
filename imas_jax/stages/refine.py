"""Stage 2, refinement by appearance (paper Sec. 3.3).

Targets are made once from the stage-1 masks, then the network is trained a little
further to meet them (equation 9). With `refine.steps = 0` stage 1 stands as it is.
"""

from collections.abc import Iterator
from pathlib import Path

from imas_jax.appearance import crf, targets
from imas_jax.data.clips import Clip
from imas_jax.runs.run import Output, Run
from imas_jax.stages import features, fit, inputs, network, object_masks, soft_masks
from imas_jax.stages.align import SOFT
from imas_jax.training import checkpoints, parallel
from imas_jax.training.watching import NOBODY, Watcher

TARGETS = "targets"


def work(run: Run, watcher: Watcher = NOBODY) -> Output:
    """Make targets, then train; continue where a killed run stopped."""
    channels = tuple(run.values("align")["channels"])
    state = network.final_state(run.config, run.folder("discover"), "discover")
    if run.config.refine.steps == 0:
        identity = checkpoints.digest(checkpoints.as_tree(state))
        return Output(identity, {"steps": 0, "last": {}, "targets": {}})
    folder = run.workdir / "refine" / TARGETS
    clips = inputs.training_clips(run.config)
    source = {
        "align": run.result("align")["identity"],
        "whole_clip": run.config.target.whole_clip,
    }
    if parallel.process()[0] != 0:
        parallel.wait_for_all()  # the first process makes the targets for all
    summary = targets.make_targets(
        folder,
        _sequences(run, clips, channels),
        source,
        recipe(run),
        run.config.target.workers,
    )
    if parallel.process()[0] == 0:
        parallel.wait_for_all()
    wanted = fit.Appearance(channels, folder)
    state = fit.fit(run, "refine", state.best_variables, watcher, wanted)
    log = inputs.training_log(run.workdir / "refine")
    return Output(
        identity=checkpoints.digest(checkpoints.as_tree(state)),
        values={
            "steps": int(state.step),
            "last": log[-1] if log else {},
            "timing": inputs.training_timing(run.workdir / "refine"),
            "targets": summary.to_json(),
        },
    )


def recipe(run: Run) -> targets.TargetRecipe:
    """Read how targets are made."""
    config = run.config.target
    constraint = None
    if config.semantic_constraint:
        see, identity, theta = features.constraining(run)
        constraint = targets.SemanticConstraint(see, identity, theta, config.dilation)
    return targets.TargetRecipe(
        crf.get_preset(config.crf),
        config.resolution,
        constraint,
        run.config.crf.solver,
    )


def _sequences(
    run: Run, clips: tuple[Clip, ...], channels: tuple[int, ...]
) -> Iterator[targets.MaskSequence]:
    """Open the clips one after the other."""
    folder: Path = run.folder("align") / SOFT
    for clip in clips:
        soft = soft_masks.read(folder, clip)
        yield targets.MaskSequence(
            clip.name,
            (clip.read(t) for t in range(len(clip.frames))),
            object_masks.object_probabilities(
                run, clip, soft, channels, run.config.target.whole_clip
            ),
        )
