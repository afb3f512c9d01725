"""Score a run's masks against annotations: the first and only stage that sees them.

Rows: the motion baseline on the same flow, the learned evidence where it was asked
for, stage 1, stage 2, and stage 2 after the CRF
if `predict.crf` names one; each with the aligned channel, and on request (named as
such) with the channel that annotations would pick.
"""

import dataclasses
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
from absl import logging
from jaxtyping import Bool
from ml_collections import ConfigDict

from imas_jax.data import annotations, images, layouts
from imas_jax.data.clips import Clip
from imas_jax.data.datasets import DATASETS
from imas_jax.evaluation import protocol, tables
from imas_jax.runs.records import digest
from imas_jax.runs.run import Output, Run
from imas_jax.stages import (
    align,
    inputs,
    motion,
    motion_baseline,
    object_masks,
    predict,
    shares,
    soft_masks,
    supervision,
)
from imas_jax.stages.predictor import Predictor, to_frame

BASELINE = "motion baseline"
Mask: TypeAlias = Bool[np.ndarray, "h w"]
Watched: TypeAlias = Callable[[Predictor], dict[str, float]]


@dataclass(frozen=True)
class Scored:
    """An annotated clip: its truth, frame by frame."""

    clip: Clip
    truth: dict[int, annotations.Annotation]


def work(run: Run) -> Output:
    """Score every annotated clip and write tables."""
    data = run.config.data
    scored = annotated_clips(run)
    if not scored:
        logging.info("evaluate: no annotations at %s, nothing to score", data.root)
        return Output("unannotated", {"annotated": False})
    told, share = supervision.of_run(run), shares.every()
    entries = [
        dataclasses.replace(entry, supervised=told * (entry.kind != "baseline"))
        for entry in _entries(run, scored, share)
    ]
    empty = empty_rule(run.config)
    folder = run.workdir / "evaluate"
    dataset = layouts.resolve(data)
    more = published(run.config, entries)
    if share.index == 0:
        tables.write(folder, entries, empty, dataset, more=more)
        for table in (tables.headline(entries, empty), *more):
            logging.info("\n%s", table.text())
    values = {
        "annotated": True,
        **tables.as_json(entries, empty),
        "entries": [dataclasses.asdict(entry) for entry in entries],
    }
    return Output(digest(values), values)


def watched_jaccard(run: Run, channels: tuple[int, ...]) -> Watched | None:
    """Make a validation pass for people who watch a training run.

    Nothing that trains may call it: `stages/watch.py` logs what it says, and training
    is told nothing (`watch.jaccard_every`).

    Args:
        run: The run; the middle annotated frame of each clip of `evaluate.split` is
            scored.
        channels: The object's channels; () before they are chosen, when only the best
            channel's J can be told, and is called oracle.

    Returns:
        What scores a network as it is, or None without annotations.
    """
    scored = annotated_clips(run)
    if not scored:
        logging.info("watch.jaccard_every: no annotations, so no J is logged")
        return None

    def tell(predictor: Predictor) -> dict[str, float]:
        rows = []
        for one in scored:
            t = sorted(one.truth)[len(one.truth) // 2]
            truth = annotations.read_truth(one.truth[t])
            (soft,) = predictor([one.clip.read(t)])
            whole = to_frame(soft, one.clip.native_size)
            some = [channels] if channels else [(c,) for c in range(soft.shape[-1])]
            size = truth.foreground.shape
            found = [object_masks.binary(run.config.predict, whole, s) for s in some]
            found = [images.resize_mask(mask, size) for mask in found]
            rows.append(
                [
                    protocol.score_sequence(
                        one.clip.name,
                        len(one.clip.frames),
                        [protocol.FramePair(t, mask, truth.foreground, truth.void)],
                        boundary=False,
                    ).jaccard[0]
                    for mask in found
                ]
            )
        means = np.mean(rows, axis=0)
        return {"J" if channels else "J_oracle_channel": float(means.max())}

    return tell


def annotated(run: Run) -> list[str]:
    """Tell which frames are annotated, by content: masks aside, this decides scores."""
    found = []
    for one in annotated_clips(run):
        lengths = [
            [path.stat().st_size for path in one.truth[t].paths]
            for t in sorted(one.truth)
        ]
        text = digest([sorted(one.truth), lengths])
        found.append(f"{one.clip.name}, {len(one.truth)} frames ({text})")
    return found


def empty_rule(config: ConfigDict) -> protocol.Empty:
    """Return what a frame scores in which both masks are empty (the authors' tools)."""
    dataset = DATASETS.get(config.data.layout)
    return dataset.truth.absent if dataset else "one"


def published(
    config: ConfigDict, entries: Sequence[protocol.Entry]
) -> list[tables.Table]:
    """Return the paper's Table 2 with these scores in it, if the config asks for it."""
    if not config.evaluate.published:
        return []
    dataset = layouts.resolve(config.data)
    return [tables.beside_published(entries, empty_rule(config), dataset)]


def read_entries(run: Run) -> tuple[protocol.Entry, ...]:
    """Read back what this stage scored; nothing without annotations."""
    values = run.values("evaluate")
    if not values["annotated"]:
        return ()
    return tuple(
        protocol.Entry(
            **{
                **entry,
                "scores": tuple(
                    protocol.SequenceScore(**_tuples(score))
                    for score in entry["scores"]
                ),
            }
        )
        for entry in values["entries"]
    )


def _tuples(values: dict[str, Any]) -> dict[str, Any]:
    """Undo what JSON makes of tuples."""
    return {k: tuple(v) if isinstance(v, list) else v for k, v in values.items()}


def annotated_clips(run: Run) -> list[Scored]:
    """Return the clips of `evaluate.split` that were predicted and are annotated."""
    config = run.config
    predicted = {clip.name: clip for clip in inputs.clips(run)}
    found = []
    for name in layouts.members(config.data, config.evaluate.split):
        if name not in predicted:
            continue
        if truth := annotations.annotated_frames(config.data, predicted[name]):
            found.append(Scored(predicted[name], truth))
    return found


def wants_flow(run: Run) -> bool:
    """Tell whether scores or pictures of flow are due: not where a network is used."""
    return not run.brought_in("refine") or bool(annotated_clips(run))


def _is_thinned(run: Run, clip: Clip) -> bool:
    return len(inputs.trained(run.config, clip).frames) < len(clip.frames)


def _entries(
    run: Run, scored: Sequence[Scored], share: shares.Share
) -> Iterator[protocol.Entry]:
    """Score one method after the other; processes share the clips of each."""
    config = run.config
    annotations.check(config.data, [one.clip for one in scored])
    channels = tuple(run.values("align")["channels"])
    parts = any(_is_thinned(run, one.clip) for one in scored)
    if parts:
        logging.warning("flow of parts of the clips only: stage 2 alone is scored")
    else:
        yield baseline(run, scored, share)
        if config.motion.evidence != "otsu":
            for preset in ("", config.motion.crf)[: 1 + bool(config.motion.crf)]:
                yield _evidence(run, scored, preset, share)
    rule = config.predict.binarize
    if rule == "threshold":
        rule = f"threshold={config.predict.threshold}"
    stages = [("stage 2", run.workdir / "predict" / predict.SOFT)]
    stage_1 = run.folder("align") / align.SOFT
    if not run.brought_in("align") and config.refine.steps > 0 and not parts:
        stages.insert(0, ("stage 1", stage_1))
    elif motion.alone(config):
        stages = []
    elif config.refine.steps == 0:
        stages = [("stage 1", stages[0][1])]
    for label, folder in stages:
        masks_of = _object_masks(run, folder, channels)
        scores = _score(scored, masks_of, label, share)
        yield protocol.Entry(label, "aligned", scores, rule)
        if config.evaluate.oracle:
            scores = _oracle(run, scored, folder, label, share)
            yield protocol.Entry(label, "oracle", scores, rule)
    if config.predict.crf or not stages:
        label = stages[-1][0] if stages else "final masks"
        label += f", CRF {config.predict.crf}" if config.predict.crf else ""
        scores = _score(scored, _written(run), label, share)
        yield protocol.Entry(label, "aligned", scores, "")


def baseline(
    run: Run, scored: Sequence[Scored], share: shares.Share = shares.ALONE
) -> protocol.Entry:
    """Score the motion baseline, off the run's flow files."""
    flow, gap = inputs.flow(run), run.config.flow.gaps[0]

    def moving(one: Scored) -> Iterator[Mask]:
        clip = inputs.trained(run.config, one.clip)  # with its cuts
        for t in range(len(clip.frames)):
            yield motion_baseline.read(flow, clip, t, gap)

    scores = _score(scored, moving, BASELINE, share)
    return protocol.Entry(BASELINE, "baseline", scores, "Otsu per frame")


def _evidence(
    run: Run, scored: Sequence[Scored], preset: str, share: shares.Share
) -> protocol.Entry:
    """Score what was said to move on its own before anything was learned."""

    def moving(one: Scored) -> Iterator[Mask]:
        clip = inputs.trained(run.config, one.clip)
        likely = motion.of_clip(run, clip, refined=bool(preset))
        return (found > motion.SURE for found in likely)

    label = f"motion evidence, {run.config.motion.evidence}"
    label += f", CRF {preset}" if preset else ""
    rule = f"threshold={motion.SURE}"
    scores = _score(scored, moving, label, share)
    return protocol.Entry(label, "baseline", scores, rule)


def _written(run: Run) -> Callable[[Scored], Iterator[Mask]]:
    """Read back the masks that the predict stage wrote, after the CRF."""
    folder = run.workdir / "predict" / predict.MASKS

    def of(one: Scored) -> Iterator[Mask]:
        for frame in one.clip.frames:
            yield soft_masks.read_png(folder / one.clip.name / f"{frame.name}.png")

    return of


def _object_masks(
    run: Run, folder: Path, channels: tuple[int, ...]
) -> Callable[[Scored], Iterator[Mask]]:
    def of(one: Scored) -> Iterator[Mask]:
        soft = soft_masks.read(folder, one.clip)
        return object_masks.binary_masks(run, one.clip, soft, channels, "")

    return of


def _oracle(
    run: Run, scored: Sequence[Scored], folder: Path, label: str, share: shares.Share
) -> tuple[protocol.SequenceScore, ...]:
    """Score every single channel; keep the one with the best frame mean."""
    best: tuple[float, tuple[protocol.SequenceScore, ...]] = (-1.0, ())
    for channel in range(run.config.model.channels):
        masks_of = _object_masks(run, folder, (channel,))
        named = f"{label}, channel {channel}"
        scores = _score(scored, masks_of, named, share, boundary=False)
        mean = protocol.summarize(scores, "frame_mean").jaccard.mean
        best = max(best, (mean, scores), key=lambda pair: pair[0])
    return best[1]


def _score(
    scored: Sequence[Scored],
    masks_of: Callable[[Scored], Iterator[Mask]],
    label: str,
    share: shares.Share,
    boundary: bool = True,
) -> tuple[protocol.SequenceScore, ...]:
    """Score one method on every clip, of which this process does its part."""

    def pairs(one: Scored) -> Iterator[protocol.FramePair]:
        for t, mask in enumerate(masks_of(one)):
            if t in one.truth:
                truth = annotations.read_truth(one.truth[t])
                found = images.resize_mask(mask, truth.foreground.shape)
                yield protocol.FramePair(t, found, truth.foreground, truth.void)

    names = {clip.name for clip in share.of([one.clip for one in scored])}
    mine = [one for one in scored if one.clip.name in names]
    own = {}
    for one in share.progress(mine, len(mine), f"scoring {label}", "clip"):
        name, length = one.clip.name, len(one.clip.frames)
        score = protocol.score_sequence(name, length, pairs(one), boundary)
        own[name] = dataclasses.asdict(score)
    told = share.join(own)
    return tuple(
        protocol.SequenceScore(**_tuples(told[one.clip.name])) for one in scored
    )
