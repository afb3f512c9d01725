"""Runs the protocol on every clip alone, as a tool: each trains a network of its own.

What a small network learns from scratch in minutes does not carry over: clips that show
unlike things, trained together, spoil each other's masks (benchmarks/results/each.md).
A clip's run is whole, in `<workdir>/runs/<clip>/`; `<workdir>/masks/` links to the
masks of all. `<workdir>/each/` adds up what they scored (`metrics.json`, `tables.md`,
`per_sequence.csv`) and leads to their reports (`index.html`). Killed and run again, it
continues.
"""

import dataclasses
import os
from collections.abc import Mapping, Sequence
from pathlib import Path

from absl import logging
from ml_collections import ConfigDict

from imas_jax import files
from imas_jax.data import layouts
from imas_jax.data.clips import Clip
from imas_jax.errors import ProblemList, UserError
from imas_jax.evaluation import protocol, tables
from imas_jax.evaluation.protocol import Entry
from imas_jax.report import contents
from imas_jax.runs.records import digest
from imas_jax.runs.run import Output, Run
from imas_jax.stages import checks, evaluate, inputs, report, settle
from imas_jax.training import compiled, parallel

NAME = "each"
GOAL = "report"
RUNS = "runs"  # folder of the clips' workdirs
PRINTED: protocol.Protocol = "frame_mean"  # the paper's; the others are in the files
# By clip: what its run scored; nothing where it is not annotated.
Scores = Mapping[str, Sequence[Entry]]


def work(run: Run) -> Output:
    """Finish the run of every clip, one after the other, and add up their scores."""
    if run.config.restore:
        raise UserError(
            f"restore = {run.config.restore!r}",
            "nothing to restore: every clip trains its own network",
            "leave --config.restore out, or --config.stage=each for one network that "
            "predicts all clips",
        )
    clips = inputs.clips(run)
    _check(run.config, clips)
    scores: dict[str, Sequence[Entry]] = {}
    cards: list[contents.Clip] = []
    for number, clip in enumerate(clips, start=1):
        logging.info("each: %s (%d of %d)", clip.name, number, len(clips))
        alone = settle.settle(clip_config(run.config, clip.name))
        one = Run(alone, tuple(run.stages.values()))
        one.make(GOAL)
        scores[clip.name] = evaluate.read_entries(one)
        cards.append(_card(one, clip.name, scores[clip.name]))
        compiled.forget()
        if parallel.process()[0] == 0:
            _link(run.workdir, clip.name)
            _write(run, scores, cards)
    _tell(run, joined(scores))
    return Output(digest(list(scores)), {"clips": list(scores)})


def clip_config(config: ConfigDict, name: str) -> ConfigDict:
    """Return the config of one clip's run.

    Args:
        config: The tool's; its `workdir` holds the runs of all clips.
        name: The clip.
    """
    alone = config.copy_and_resolve_references().unlock()
    alone.update({"stage": "all", "workdir": str(Path(config.workdir) / RUNS / name)})
    alone.data.sequences = (name,)
    return alone.lock()


def joined(scores: Scores) -> list[Entry]:
    """Put the clips' rows together: what has the same label and kind is one method.

    A row that some annotated clip lacks (of a long clip only stage 2 is scored) holds
    no frame of that clip, so every row has the same sequences in the same order.
    """
    annotated = [entries for entries in scores.values() if entries]
    complete_first = sorted(annotated, key=len, reverse=True)
    rows = {(e.label, e.kind): e for entries in complete_first for e in entries}
    return [
        dataclasses.replace(
            row, scores=tuple(_score(entries, row) for entries in annotated)
        )
        for row in rows.values()
    ]


def _score(entries: Sequence[Entry], row: Entry) -> protocol.SequenceScore:
    """Return what a clip's run scored in a row, or no frames."""
    for entry in entries:
        if (entry.label, entry.kind) == (row.label, row.kind):
            return entry.scores[0]
    return entries[0].scores[0].only(())


def _check(config: ConfigDict, clips: Sequence[Clip]) -> None:
    """Refuse what some clip's run would refuse after others took their time."""
    problems, fixes = ProblemList(), []
    for clip in clips:
        try:
            alone = clip_config(config, clip.name)
            checks.check(settle.outline(alone, (clip,)), GOAL)
        except UserError as error:
            problems.add(clip.name, error.found)
            fixes.append(error.fix)
    problems.raise_if_any(
        "clips that cannot be run",
        "a config that fits every clip",
        "; or ".join(dict.fromkeys(fixes)),
    )


def _link(workdir: Path, name: str) -> None:
    """Let `masks/<clip>` lead to where the clip's run wrote them."""
    link = workdir / "masks" / name
    link.parent.mkdir(parents=True, exist_ok=True)
    target = os.path.relpath(
        workdir / RUNS / name / "predict/masks" / name, link.parent
    )
    if not link.is_symlink():
        link.symlink_to(target, target_is_directory=True)


def _card(run: Run, name: str, entries: Sequence[Entry]) -> contents.Clip:
    """Put what a clip's run says of itself on a card; the last aligned row is it."""
    aligned = [entry for entry in entries if entry.kind == "aligned"]
    jaccard = None
    if aligned:
        empty = evaluate.empty_rule(run.config)
        of_frames = protocol.summarize(aligned[-1].scores, PRINTED, empty)
        jaccard = of_frames.jaccard.mean
    # A report that was finished before it noted how unsure its masks are has none.
    unsure = run.values("report").get("unsure", {}).get(name)
    folder = f"../{RUNS}/{name}/report"
    warnings = tuple(w.removeprefix(f"{name}: ") for w in report.warnings(run))
    return contents.Clip(name, folder, jaccard, unsure, warnings)


def _write(run: Run, scores: Scores, cards: Sequence[contents.Clip]) -> None:
    """Write scores and page of the clips that are finished; whole or not at all."""
    folder, entries = run.workdir / NAME, joined(scores)
    empty, dataset = evaluate.empty_rule(run.config), layouts.resolve(run.config.data)
    if entries:
        tables.write(folder, entries, empty, dataset)
    page = contents.render(run.workdir.name, cards, entries, empty, dataset)
    files.write_text(folder / "index.html", page)


def _tell(run: Run, entries: Sequence[Entry]) -> None:
    """Print the table over all clips, and where everything is."""
    empty, dataset = evaluate.empty_rule(run.config), layouts.resolve(run.config.data)
    if entries:
        logging.info(
            "\n%s", tables.per_sequence(entries, PRINTED, empty, dataset).text()
        )
        logging.info("\n%s", tables.headline(entries, empty).text())
        logging.info("all protocols: %s", run.workdir / NAME / "tables.md")
    logging.info("all masks: %s", run.workdir / "masks")
