"""Stage 2, refinement by appearance (paper Sec. 3.3).

Targets are made once from the stage-1 masks, then the network is trained a little
further to meet them (equation 9). With `target.when = "online"` they are made of every
batch instead, from the masks of the averaged network (training/online.py). With
`refine.steps = 0` stage 1 stands as it is.
"""

import dataclasses
import itertools
from collections.abc import Iterator
from pathlib import Path
from typing import Any, TypeVar

from absl import logging
from ml_collections import ConfigDict

from imas_jax.appearance import crf, cuts, semantic, targets
from imas_jax.conventions import Tree
from imas_jax.data.clips import Clip
from imas_jax.errors import UserError
from imas_jax.runs.run import Output, Run
from imas_jax.stages import (
    features,
    fit,
    inputs,
    motion,
    network,
    object_masks,
    shares,
    soft_masks,
    supervision,
)
from imas_jax.stages.align import SOFT
from imas_jax.training import checkpoints
from imas_jax.training.watching import NOBODY, Watcher

TARGETS = "targets"
T = TypeVar("T")


def work(run: Run, watcher: Watcher = NOBODY) -> Output:
    """Make targets, then train; continue where a killed run stopped."""
    channels = tuple(run.values("align")["channels"])
    if motion.alone(run.config):
        stage_1 = run.result("discover")["identity"]
        return Output(stage_1, {"steps": 0, "last": {}, "targets": {}})
    if run.config.refine.steps == 0:
        state = network.final_state(run.config, run.folder("discover"), "discover")
        identity = checkpoints.digest(checkpoints.as_tree(state))
        return Output(identity, {"steps": 0, "last": {}, "targets": {}})
    made: dict[str, Any] = {}
    if run.config.target.when == "online":
        how, workers = recipe(run), run.config.target.workers
        wanted = fit.Wanted(
            channels,
            refine=lambda frames, masks: targets.refine_batch(
                frames, masks, how, workers
            ),
        )
    else:
        folder = run.workdir / "refine" / TARGETS
        made = make_targets(run, channels, folder, shares.every()).to_json()
        clips = inputs.training_clips(run)
        wanted = fit.Wanted(channels, [targets.read(folder, c.name) for c in clips])
    state = fit.fit(run, "refine", starting_variables(run), watcher, wanted)
    log = inputs.training_log(run.workdir / "refine")
    return Output(
        identity=checkpoints.digest(checkpoints.as_tree(state)),
        values={
            "steps": int(state.step),
            "last": log[-1] if log else {},
            "timing": inputs.training_timing(run.workdir / "refine"),
            "targets": made,
            supervision.NOTED: _supervised(run.config),
        },
    )


def starting_variables(run: Run) -> Tree:
    """Return what `refine.init` names, else what stage 1 of this run ended with.

    Raises:
        UserError: If the run to start from is not finished, or another network's.
    """
    found = network.weights_of_run(run.config, "refine")
    if found is not None:
        logging.info("starting from the weights of %s", run.config.refine.init)
        return found
    folder = run.folder("discover")
    return network.final_state(run.config, folder, "discover").best_variables


def _supervised(config: ConfigDict) -> list[str]:
    """Say what stage 2 owes to weights from human labels."""
    told = supervision.of_start(config, "refine")
    if config.target.semantic_constraint:
        told += supervision.of_features(config, features.constraint_kind(config))
    return told


def _check_aligned(run: Run, clips: tuple[Clip, ...]) -> None:
    """Refuse clips that the restored run, whose masks are used, never aligned.

    Raises:
        UserError: With the clips.
    """
    aligned = run.values("align")["sequences"]
    unknown = [clip.name for clip in clips if clip.name not in aligned]
    if run.brought_in("align") and unknown:
        raise UserError(
            f"{run.config.restore} has no stage-1 masks of {', '.join(unknown[:8])}",
            "the clips it was aligned on, for restore_until=align",
            "set --config.restore_until=discover: these clips are aligned here then",
        )


def make_targets(
    run: Run, channels: tuple[int, ...], folder: Path, share: shares.Share
) -> targets.TargetSummary:
    """Make this process's targets from stage 1's masks; return when all are made."""
    clips = inputs.training_clips(run)
    _check_aligned(run, clips)
    source = {
        "align": run.result("align")["identity"],
    }
    mine = share.of(clips)
    count = sum(len(clip.frames) for clip in mine)

    def shown(steps: Iterator[T]) -> Iterator[T]:
        return share.progress(steps, count, "targets", "frame")

    own = targets.make_targets(
        folder,
        _sequences(run, mine, channels),
        source,
        recipe(run),
        run.config.target.workers,
        shown,
    )
    told = share.join({n: dataclasses.asdict(one) for n, one in own.sequences.items()})
    reused = set(itertools.chain.from_iterable(share.gather(list(own.reused))))
    return targets.TargetSummary(
        own.provenance,
        {c.name: targets.SequenceStatistics(**told[c.name]) for c in clips},
        tuple(clip.name for clip in clips if clip.name in reused),
    )


def recipe(run: Run) -> targets.TargetRecipe:
    """Read how targets are made."""
    config = run.config.target
    constraint: targets.Constraint = None
    if config.semantic_constraint:
        see, identity, theta = features.constraining(run)
        if config.constrained_by == "cut":
            constraint = cuts.CutConstraint(
                see.each, identity, theta, config.disagreement
            )
        else:
            constraint = semantic.SemanticConstraint(
                see.each, identity, theta, config.dilation
            )
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
            object_masks.object_probabilities(soft, channels),
        )
