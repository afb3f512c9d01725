"""Trains rows of the paper's Tables 3, 4 and 5, or whole methods, over seeds: a tool.

Every row and seed is a run of its own in `rows/<row>/seed-<n>/`. Its stages are links
into `stages/<stage>-<digest>/`, named for all fields that decide them, so that rows
which agree so far share the work: flow is computed once, stage 1 once for all rows that
differ after it. Killed and run again, it continues.

With `ablate.alone` every annotated sequence trains a network of its own, as a user's
clip does with configs/video.py, in `rows/<row>/seed-<n>/<sequence>/`; a row's scores
are those of all its networks.
"""

import dataclasses
import json
import os
import statistics
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from absl import logging
from ml_collections import ConfigDict

from imas_jax import files
from imas_jax.errors import ProblemList, UserError
from imas_jax.evaluation import ablations, protocol, tables
from imas_jax.evaluation.ablations import Ablation
from imas_jax.evaluation.protocol import Entry
from imas_jax.runs.records import digest, typed
from imas_jax.runs.run import Output, Run
from imas_jax.stages import checks, evaluate
from imas_jax.training import compiled, parallel

GOAL = "evaluate"
METHODS = "methods"  # all of `ablations.METHODS`
PRINTED: protocol.Protocol = "frame_mean"  # the paper's; the others are in the files
# By row, then by seed: what it scored.
Results = dict[str, dict[int, Entry]]


def work(run: Run) -> Output:
    """Train and score all rows; the table is written anew after each."""
    rows = tuple(
        ablations.with_crf(row, run.config.ablate.crf)
        for row in choose(run.config.ablate.rows)
    )
    seeds = tuple(run.config.ablate.seeds)
    _check(run.config, rows, seeds)
    _check_annotated(run)
    parts: tuple[str, ...] = ("",)
    if run.config.ablate.alone:
        scored = evaluate.annotated_clips(run)
        parts = tuple(one.clip.name for one in scored)
    groups = ablations.distinct(rows)
    results: Results = {}
    baseline: Entry | None = None
    done, total = 0, len(seeds) * len(groups)
    for seed in seeds:
        for group in groups:
            names = ", ".join(row.name for row in group)
            done += 1
            logging.info("ablate: %s, seed %d (%d of %d)", names, seed, done, total)
            made = [_make(run, group, seed, part) for part in parts]
            found = [one for one, _ in made if one is not None]
            baseline = _joined(found) if found else None
            entry = _joined([one for _, one in made])
            for row in group:
                results.setdefault(row.name, {})[seed] = entry
            _write(run, rows, results, baseline)
    table = _table(run.config, rows, results, baseline, PRINTED)
    logging.info("\n%s", table.text())
    values = _as_json(run.config, rows, results, baseline)
    return Output(digest(values), values)


def choose(text: str) -> tuple[Ablation, ...]:
    """Read a list of rows, in the order of the paper.

    Args:
        text: Comma-separated names of rows, `table-3`, `table-4`, `table-5` for all of
            a table, and `methods` for whole methods; "" for all three tables.

    Raises:
        UserError: If there is no such row, with all names.
    """
    wanted = {part.strip() for part in text.split(",")} - {""}
    groups = {f"table-{row.table}" for row in ablations.ABLATIONS}
    named = [*sorted(groups), METHODS, *(row.name for row in ablations.ROWS)]
    if unknown := sorted(wanted.difference(named)):
        raise UserError(
            f"ablate.rows names {', '.join(unknown)}",
            ", ".join(named),
            'correct the list; "" takes all rows of Tables 3, 4 and 5',
        )
    wanted = wanted or groups
    if METHODS in wanted:
        wanted |= {row.name for row in ablations.METHODS}
    found = [row for row in ablations.ABLATIONS if f"table-{row.table}" in wanted]
    found += [row for row in ablations.ROWS if row.name in wanted and row not in found]
    return tuple(row for row in ablations.ROWS if row in found)


def row_config(
    config: ConfigDict, row: Ablation, seed: int, sequence: str = ""
) -> ConfigDict:
    """Return the config of one row: the recipe, what the row changes, and its seed.

    Args:
        config: The tool's; its `workdir` holds all rows.
        row: The row.
        seed: The seed.
        sequence: The only sequence of the run; "" trains on all together.
    """
    root = Path(config.workdir)
    changed = config.copy_and_resolve_references().unlock()
    changed.update_from_flattened_dict({**ablations.RECIPE, **row.overrides})
    changed.update(
        {
            "seed": seed,
            "stage": GOAL,
            "workdir": str(root / "rows" / row.name / f"seed-{seed}" / sequence),
        }
    )
    if sequence:
        changed.data.sequences = (sequence,)
    changed.flow.root = config.flow.root or str(root / "flow")
    return changed.lock()


def _check(config: ConfigDict, rows: Sequence[Ablation], seeds: Sequence[int]) -> None:
    """Refuse what some row would refuse hours later."""
    if not seeds:
        raise UserError(
            "ablate.seeds is empty", "seeds, e.g. 0,1,2", "set --config.ablate.seeds"
        )
    if config.restore:
        raise UserError(
            f"restore = {config.restore!r}",
            "nothing to restore: rows train their own networks",
            "leave --config.restore out",
        )
    problems, sound, fixes = ProblemList(), [], []
    for row in rows:
        if config.refine.steps == 0 and "refine.steps" not in row.overrides:
            problems.add(row.name, "a row of stage 2, but refine.steps = 0")
            fixes.append("set refine.steps")
            continue
        try:
            checks.check(row_config(config, row, seeds[0]), GOAL)
        except UserError as error:
            problems.add(row.name, error.found)
            fixes.append(error.fix)
        else:
            sound.append(row.name)
    if sound:
        fixes.append(f"leave them out: --config.ablate.rows={','.join(sound)}")
    problems.raise_if_any(
        "rows that cannot be trained",
        "a config that every row can use (the semantic constraint wants align.weights)",
        "; or ".join(dict.fromkeys(fixes)),
    )


def _check_annotated(run: Run) -> None:
    """Refuse rows that nothing can be scored against."""
    config = run.config
    if not evaluate.annotated_clips(run):
        raise UserError(
            f"no sequence of split {config.evaluate.split!r} at {config.data.root} is "
            "annotated",
            "annotations to score rows against",
            "name another data.root or evaluate.split",
        )


def _make(
    run: Run, group: Sequence[Ablation], seed: int, sequence: str
) -> tuple[Entry | None, Entry]:
    """Finish one run; return the motion baseline and what the run scored."""
    before = ""
    if group[0].after:
        (first,) = (row for row in ablations.ROWS if row.name == group[0].after)
        _make(run, [first], seed, sequence)
        before = row_config(run.config, first, seed, sequence).workdir
    for row in group:  # every name leads to the run
        config = row_config(run.config, row, seed, sequence).unlock()
        config.discover.init = before or config.discover.init
        config.lock()
        one = Run(config, tuple(run.stages.values()), run.clips)
        if parallel.process()[0] == 0:
            _share(one, run.workdir / "stages")
        parallel.wait_for_all()
    one.make(GOAL)
    compiled.forget()
    entries = evaluate.read_entries(one)
    # With a post-processing CRF in the row, the last aligned entry is after it.
    aligned = [entry for entry in entries if entry.kind == "aligned"]
    baseline = next((e for e in entries if e.kind == "baseline"), None)
    return baseline, aligned[-1]


def _joined(parts: Sequence[Entry]) -> Entry:
    """Put the scores of networks for one sequence each together."""
    scores = tuple(score for part in parts for score in part.scores)
    return dataclasses.replace(parts[0], scores=scores)


def _share(one: Run, store: Path) -> None:
    """Link a run's stages to their shared folders.

    Raises:
        UserError: If something else lies where a link belongs.
    """
    one.workdir.mkdir(parents=True, exist_ok=True)
    for name in _needed(one, GOAL):
        home = store / f"{name}-{digest(one.subset(one.stages[name]))}"
        home.mkdir(parents=True, exist_ok=True)
        link = one.workdir / name
        target = os.path.relpath(home, one.workdir)
        if link.is_symlink() and os.readlink(link) == target:
            continue
        if link.is_symlink():
            link.unlink()
        elif link.exists():
            raise UserError(
                f"{link} is no link of this tool",
                "a folder that only stage ablate writes to",
                "choose another --config.workdir",
            )
        link.symlink_to(target, target_is_directory=True)


def _needed(run: Run, name: str) -> Iterator[str]:
    """Yield a stage and all it needs, each once."""
    found, todo = [name], [name]
    while todo:
        more = [n for n in run.needs(run.stages[todo.pop()]) if n not in found]
        found += more
        todo += more
    yield from found


def _table(
    config: ConfigDict,
    rows: Sequence[Ablation],
    results: Results,
    baseline: Entry | None,
    which: protocol.Protocol,
) -> tables.Table:
    by_row = {name: list(found.values()) for name, found in results.items()}
    empty = evaluate.empty_rule(config)
    return ablations.spread_table(rows, by_row, which, empty, baseline)


def _write(
    run: Run, rows: Sequence[Ablation], results: Results, baseline: Entry | None
) -> None:
    """Write `tables.md` and `metrics.json`, each whole or not at all."""
    if parallel.process()[0] != 0:
        return
    scored = next(iter(next(iter(results.values())).values())).scores
    frames = sum(len(score.frames) for score in scored)
    parts = [f"`{typed()}`", f"{len(scored)} sequences, {frames} annotated frames."]
    parts += [
        _table(run.config, rows, results, baseline, which).markdown()
        for which in reversed(protocol.PROTOCOLS)
    ]
    values = _as_json(run.config, rows, results, baseline)
    contents = {
        "tables.md": "\n\n".join(parts) + "\n",
        "metrics.json": json.dumps(values, indent=1, allow_nan=False) + "\n",
    }
    folder = run.workdir / "ablate"
    for name, text in contents.items():
        files.write_text(folder / name, text)


def _as_json(
    config: ConfigDict,
    rows: Sequence[Ablation],
    results: Results,
    baseline: Entry | None,
) -> dict[str, Any]:
    """Return all numbers, in [0, 1]; the paper's in percent as it prints them."""
    empty = evaluate.empty_rule(config)

    def means(entry: Entry) -> dict[str, float]:
        return {
            which: protocol.summarize(entry.scores, which, empty).jaccard.mean
            for which in protocol.PROTOCOLS
        }

    told = []
    for row in rows:
        by_seed = {s: means(entry) for s, entry in results.get(row.name, {}).items()}
        spread = {}
        for which in protocol.PROTOCOLS if by_seed else ():
            values = [found[which] for found in by_seed.values()]
            std = statistics.stdev(values) if len(values) > 1 else None
            spread[which] = {"mean": statistics.fmean(values), "std": std}
        told.append(
            {
                "row": row.name,
                "table": row.table,
                "paper_percent": row.paper,
                "overrides": dict(row.overrides),
                "jaccard": spread,
                "seeds": {str(seed): found for seed, found in by_seed.items()},
            }
        )
    return {"baseline": means(baseline) if baseline else {}, "rows": told}
