"""The protocol as a list: every stage, what it needs, and what decides its result."""

from ml_collections import ConfigDict

from imas_jax.data.found import Clips
from imas_jax.runs import hub, lock, outcomes, restoring
from imas_jax.runs import run as run_lib
from imas_jax.runs.records import digest
from imas_jax.runs.run import Output, Run, Stage
from imas_jax.stages import (
    align,
    checks,
    discover,
    evaluate,
    facts,
    fields,
    flow,
    inputs,
    mask_export,
    motion,
    predict,
    prepare,
    refine,
    report,
    settle,
    shares,
    watch,
)
from imas_jax.tools import ablate, each, evidence, pretrain, push, score, tune
from imas_jax.training import compiled, parallel, together


def _flow(run: Run) -> Output:
    values = flow.run(
        run.config,
        inputs.training_clips(run),
        run.workdir / "flow",
        shares.every(),
    )
    return Output(digest(run.subset(run.stages["flow"])), values)


def _flow_intact(run: Run) -> bool:
    wanted = run.config.flow
    if wanted.export and run.values("flow").get("exported") != wanted.export:
        return False
    clips = inputs.training_clips(run)
    return flow.is_intact(inputs.flow(run), clips, wanted.gaps)


def _prepare(run: Run) -> Output:
    values = prepare.run(
        run.config,
        inputs.training_clips(run),
        inputs.flow(run),
        run.workdir / "prepare",
        parallel.process(),
        parallel.wait_for_all,
        parallel.exchange,
    )
    # What training reads, whether from shards or not.
    return Output(run.result("flow")["identity"], values)


def _prepare_intact(run: Run) -> bool:
    if run.config.data.source != "tfrecord":
        return True
    clips, flow = inputs.training_clips(run), inputs.flow(run)
    return run.values("prepare")["source"] == "tfrecord" and prepare.is_intact(
        run.config, clips, flow, run.workdir / "prepare"
    )


def _discover(run: Run) -> Output:
    return discover.work(run, watch.watcher(run, "discover"))


def _refine(run: Run) -> Output:
    return refine.work(run, watch.watcher(run, "refine"))


_FLOW = tuple(
    f"flow.{name}"
    for name in (
        *("estimator", "source", "weights", "iterations", "precision"),
        *("correlation", "size", "root", "export"),
    )
)
# Background is subtracted where flow is read, not where it is computed.
_TRAINING = (
    *("augment", "model", "loss", "discover", "precision", "seed"),
    "flow.background",
)
# How masks leave the network; what is done with them afterwards decides later stages.
_SOFT_MASKS = ("predict.short_side", "predict.flip")

# What watches training draws and scores as the stages after it do.
_WATCHED = ("watch", "predict", "evaluate.split")

STAGES = (
    Stage(
        "flow",
        (),
        ("flow.gaps",),
        _flow,
        {"clips trained on": facts.training_clips, "flow": facts.flow_settings},
        reads=("data", *_FLOW),
        shared=True,
        lighter=("flow.size",),
        in_place=True,
        intact=_flow_intact,
    ),
    Stage(
        "motion",
        ("flow",),
        ("motion",),
        motion.work,
        {"evidence by": facts.evidence},
        shared=True,
        reads=("crf", "target.workers"),
    ),
    Stage(
        "prepare",
        ("flow",),
        (),
        _prepare,
        reads=("flow.background",),
        shared=True,
        in_place=True,
        intact=_prepare_intact,
    ),
    Stage(
        "discover",
        ("prepare",),
        _TRAINING,
        _discover,
        {
            "model.weights": facts.weights,
            "discover.init": facts.start_of("discover"),
            "model.trained on": facts.frozen_features,
        },
        reads=_WATCHED,
        shared=True,
        lighter=("discover.batch_size", "augment.crop", "model.width"),
        also=lambda run: ("motion",) * (run.config.discover.evidence_weight > 0),
    ),
    Stage(
        "align",
        ("discover", "motion"),
        ("align.score", "align.judged", "align.largest", *_SOFT_MASKS),
        align.work,
        {"align.features": facts.judge},
        shared=True,
        lighter=("predict.batch_size", "predict.short_side"),
        reads=("align", "predict.batch_size"),
    ),
    Stage(
        "refine",
        ("align", "prepare"),
        ("target", "crf", "refine"),
        _refine,
        {
            "target.semantic_constraint by": facts.constraint,
            "refine.init": facts.start_of("refine"),
        },
        shared=True,
        lighter=("refine.batch_size", "augment.crop", "model.width"),
    ),
    Stage(
        "predict",
        ("refine", "align"),
        ("predict", "crf"),
        predict.work,
        {"clips": facts.clips},
        shared=True,
        lighter=("predict.batch_size", "predict.short_side"),
        intact=lambda run: mask_export.is_there(run, inputs.clips(run)),
    ),
    Stage(
        "evaluate",
        ("predict",),
        ("evaluate",),
        evaluate.work,
        {"annotations": evaluate.annotated},
        shared=True,
        also=lambda run: ("motion",) if evaluate.wants_flow(run) else (),
    ),
    Stage("report", ("evaluate",), ("report",), report.work),
)
LAST = STAGES[-1].name

EVERYTHING = (
    *("data", "flow", "motion", *_TRAINING, "align", "target", "crf", "refine"),
    *("predict", "evaluate", "report", "watch", "ablate"),
)
_RANKED = ("data", "flow", "align", "predict", "model", "precision")

# Not part of the protocol: run by name, most of them anew each time.
TOOLS = (
    Stage("tune", (), (*_RANKED, "discover", "refine"), tune.work, repeat=True),
    Stage("score", (), ("data", "flow", "evaluate"), score.work, repeat=True),
    Stage("ablate", (), EVERYTHING, ablate.work, shared=True, repeat=True),
    Stage("each", (), EVERYTHING, each.work, shared=True, repeat=True),
    Stage("evidence", (), ("flow", "seed", "evidence"), evidence.work, repeat=True),
    Stage(
        pretrain.NAME,
        (),
        pretrain.SECTIONS,
        pretrain.work,
        {"images": pretrain.contents},
        shared=True,
        lighter=("pretrain.batch_size", "pretrain.crop"),
    ),
    Stage("push", (), ("push",), push.work, repeat=True),
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


def next_steps(made: Run, words: list[str]) -> list[str]:
    """Return what people type after the stage that a run was asked for.

    Args:
        made: What `run` returned.
        words: The command line, see `outcomes.command`.
    """
    reached = goal(made.config)
    order = [stage.name for stage in STAGES]
    later = order[order.index(reached) + 1 :] if reached in order else []
    left = [name for name in later if not made.brought_in(name)]
    return outcomes.next_steps(
        reached, words, made.workdir, (*left, "")[0], made.values(reached)
    )


def run(config: ConfigDict) -> Run:
    """Finish the stage that a config names, and all it needs; return the run.

    Args:
        config: As a recipe makes it, with what is overridden; it is locked.

    Raises:
        UserError: With everything that is wrong, before any work as far as it can be
            told then.
        Stopped: If a signal asked to stop; the same config goes on.
    """
    fields.check(config.lock(), names())
    compiled.keep()
    with (
        together.joined(config.distributed, config.hung_after),
        lock.hold(run_lib.workdir_of(config)),
    ):
        config = restoring.adopt_network(hub.resolved(config))
        config, found = inputs.locate(config), Clips()
        config = settle.settle(config, found)
        checks.check(config, wanted := goal(config))
        made = Run(config, (*STAGES, *TOOLS), found)
        made.make(wanted)
    return made
