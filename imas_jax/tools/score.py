"""Scores folders of masks of any method as a tool: no network, nothing is trained.

`evaluate.masks` names them. Several are compared sequence by sequence with the first.
The motion baseline on flow computed here stands in the first row.
"""

import dataclasses
from collections.abc import Sequence
from pathlib import Path

from absl import logging
from ml_collections import ConfigDict

from imas_jax.data import annotations, layouts
from imas_jax.errors import ProblemList, UserError
from imas_jax.evaluation import compare, external, mask_folders, protocol, tables
from imas_jax.evaluation.mask_folders import MaskFolder
from imas_jax.evaluation.protocol import Entry
from imas_jax.runs.records import digest
from imas_jax.runs.run import Output, Run
from imas_jax.stages import evaluate, flow, inputs
from imas_jax.stages.evaluate import Scored
from imas_jax.tools import folder_lists

# The others are in the files. Where masks are missing that it needs: official.
PRINTED: protocol.Protocol = "frame_mean"


def work(run: Run) -> Output:
    """Score every folder, print the tables and store them."""
    config = run.config
    found = folder_lists.paths(config.evaluate.masks, "evaluate.masks")
    scored = _annotated(run)
    opened = _open(config, found, scored)
    names = folder_lists.short_names(found)
    entries: list[Entry] = []
    told_of: dict[str, list[str]] = {}  # by line, the folders it is about
    for name, (masks, lines) in zip(names, opened, strict=True):
        clips = [one.clip for one in scored]
        told = external.score_folder(masks, config.data, clips, config.evaluate.partial)
        entries.append(Entry(name, "given", told.scores, _rule(masks)))
        for line in (*lines, *told.notes):
            told_of.setdefault(line, []).append(name)
    if config.evaluate.baseline:
        entries.insert(0, _baseline(run, scored))
    notes = [f"{', '.join(some)}: {line}" for line, some in told_of.items()]
    if config.evaluate.partial:
        kept, cut = compare.on_common_frames(entries)
        _check_common(kept, config)
        entries = list(kept)
        notes += cut
    folders = dict(zip(names, map(str, found), strict=True))
    return _tell(run, entries, notes, folders)


def _tell(
    run: Run,
    entries: Sequence[Entry],
    notes: Sequence[str],
    folders: dict[str, str],
) -> Output:
    """Print and write what was scored."""
    empty, dataset = evaluate.empty_rule(run.config), layouts.resolve(run.config.data)
    given = {
        which: [e for e in entries if e.kind == "given" and e.has(which)]
        for which in protocol.PROTOCOLS
    }
    comparisons = {
        which: compare.comparison_table(some, which, empty)
        for which, some in given.items()
        if len(some) > 1
    }
    values = {
        "folders": folders,
        "notes": list(notes),
        "differences": {
            which: [
                dataclasses.asdict(
                    compare.compare(given[which][0], other, which, empty)
                )
                for other in given[which][1:]
            ]
            for which in comparisons
        },
    }
    published = evaluate.published(run.config, entries)
    more = [*comparisons.values(), *published]
    tables.write(run.workdir / "score", entries, empty, dataset, values, more)
    whole = all(entry.has(PRINTED) for entry in entries)
    printed: protocol.Protocol = PRINTED if whole else "official"
    shown = [tables.per_sequence(entries, printed, empty, dataset)]
    shown += [comparisons[printed]] if printed in comparisons else []
    shown += [tables.headline(entries, empty), *published]
    for table in shown:
        logging.info("\n%s", table.text())
    for note in notes:
        logging.warning("%s", note)
    values = {**tables.as_json(entries, empty), **values}
    return Output(digest(values), values)


def _annotated(run: Run) -> list[Scored]:
    """Find what can be scored, and whether its ground truth is sound."""
    config, scored = run.config, evaluate.annotated_clips(run)
    if not scored:
        raise UserError(
            f"no sequence of split {config.evaluate.split!r} at {config.data.root} is "
            "annotated",
            "annotations to score against",
            "give the whole data set with data.root, or another evaluate.split",
        )
    annotations.check(config.data, [one.clip for one in scored])
    return scored


def _open(
    config: ConfigDict, folders: Sequence[Path], scored: Sequence[Scored]
) -> list[tuple[MaskFolder, tuple[str, ...]]]:
    """Open all folders and look at all masks; what is wrong is told at once.

    Returns:
        The folders, and lines of what is missing or too much in each.
    """
    problems, opened, fixes = ProblemList(), [], []
    wanted, clips = config.evaluate, [one.clip for one in scored]
    for folder in folders:
        try:
            masks = mask_folders.open_masks(
                folder, wanted.encoding, wanted.threshold, wanted.label
            )
            lines = external.check_folder(masks, config.data, clips, wanted.partial)
            opened.append((masks, lines))
        except UserError as error:
            if len(folders) == 1:
                raise
            problems.add(folder, error.found)
            fixes.append(error.fix)
    problems.raise_if_any(
        "evaluate.masks",
        "folders with a readable mask of every annotated frame",
        "; ".join(dict.fromkeys(fixes)),
    )
    return opened


def _rule(masks: MaskFolder) -> str:
    """Say how a folder's pixels became masks."""
    if masks.encoding == "soft":
        return f"threshold={masks.threshold}"
    return f"label {masks.label}" if masks.label else masks.encoding


def _baseline(run: Run, scored: Sequence[Scored]) -> Entry:
    """Compute the flow that is missing; what is there from before is taken."""
    clips = inputs.clips(run)
    names = {one.clip.name for one in scored}
    clips = tuple(clip for clip in clips if clip.name in names)
    flow.run(run.config, clips, run.workdir / "flow")
    return evaluate.baseline(run, scored)


def _check_common(entries: Sequence[Entry], config: ConfigDict) -> None:
    if not any(score.frames for score in entries[0].scores):
        raise UserError(
            f"no annotated frame has a mask in every folder of {config.evaluate.masks}",
            "folders with masks of the same frames",
            "score them one by one, or add masks",
        )
