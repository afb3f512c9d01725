"""The protocol as a list: every stage, what it needs, and what decides its result."""

from ml_collections import ConfigDict

from imas_jax.runs.records import digest
from imas_jax.runs.run import Output, Run, Stage
from imas_jax.stages import (
    align,
    discover,
    evaluate,
    flow,
    inputs,
    predict,
    prepare,
    refine,
    report,
    watch,
)
from imas_jax.tools import ablate, each, evidence, score, tune
from imas_jax.training import parallel


def _flow(run: Run) -> Output:
    clips = inputs.training_clips(run.config)
    values = flow.run(
        run.config,
        clips,
        run.workdir / "flow",
        parallel.process(),
        parallel.wait_for_all,
    )
    names = {clip.name: [len(clip.frames), *clip.size] for clip in clips}
    return Output(digest([values["folder"], names]), values)


def _flow_intact(run: Run) -> bool:
    clips = inputs.training_clips(run.config)
    return flow.is_intact(run.config, clips, run.workdir / "flow")


def _prepare(run: Run) -> Output:
    values = prepare.run(
        run.config,
        inputs.flow(run),
        run.workdir / "prepare",
        parallel.process(),
        parallel.wait_for_all,
    )
    return Output(digest(values), values)


def _discover(run: Run) -> Output:
    return discover.work(run, watch.watcher(run, "discover"))


def _refine(run: Run) -> Output:
    return refine.work(run, watch.watcher(run, "refine"))


_TRAINING = ("augment", "model", "loss", "discover", "precision", "seed")
# How masks leave the network; what is done with them afterwards decides later stages.
_SOFT_MASKS = ("predict.short_side", "predict.flip")

STAGES = (
    Stage("flow", (), ("data", "flow"), _flow, shared=True, intact=_flow_intact),
    Stage("prepare", ("flow",), (), _prepare, shared=True),
    Stage("discover", ("prepare",), _TRAINING, _discover, shared=True),
    Stage("align", ("discover", "flow"), ("align", *_SOFT_MASKS), align.work),
    Stage("refine", ("align",), ("target", "crf", "refine"), _refine, shared=True),
    Stage("predict", ("refine", "align"), ("predict", "crf"), predict.work),
    Stage(
        "evaluate",
        ("predict",),
        ("evaluate",),
        evaluate.work,
        also=lambda run: ("flow",) if evaluate.wants_flow(run) else (),
    ),
    Stage("report", ("evaluate",), ("report",), report.work),
)
LAST = STAGES[-1].name

EVERYTHING = (
    *("data", "flow", *_TRAINING, "align", "target", "crf", "refine"),
    *("predict", "evaluate"),
    "ablate",
)

# Not part of the protocol: run by name, anew each time.
TOOLS = (
    Stage("tune", (), ("data", "flow", "align", "predict"), tune.work, repeat=True),
    Stage("score", (), ("data", "flow", "evaluate"), score.work, repeat=True),
    Stage("ablate", (), EVERYTHING, ablate.work, shared=True, repeat=True),
    Stage("each", (), EVERYTHING, each.work, shared=True, repeat=True),
    Stage("evidence", (), ("flow", "seed"), evidence.work, repeat=True),
)


def names() -> tuple[str, ...]:
    """Return what `config.stage` may be."""
    return ("all", *(stage.name for stage in (*STAGES, *TOOLS)))


def goal(config: ConfigDict) -> str:
    """Return the stage that a config wants finished."""
    if config.stage == "align" and (config.align.masks or config.align.sweep):
        return "tune"
    if config.stage == "evaluate" and config.evaluate.masks:
        return "score"
    return LAST if config.stage == "all" else config.stage
