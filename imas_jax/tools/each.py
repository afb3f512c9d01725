"""Runs the protocol on every clip alone, as a tool: each trains a network of its own.

What a small network learns from scratch in minutes does not carry over: clips that show
unlike things, trained together, spoil each other's masks (benchmarks/results/each.md).
A clip's run is whole, in `<workdir>/runs/<clip>/`; `<workdir>/masks/` links to the
masks of all, `<workdir>/each/index.html` to the reports. Killed and run again, it
continues.
"""

import html
import os
from pathlib import Path
from urllib.parse import quote

from absl import logging
from ml_collections import ConfigDict

from imas_jax import files
from imas_jax.errors import ProblemList, UserError
from imas_jax.runs.records import digest
from imas_jax.runs.run import Output, Run
from imas_jax.stages import checks, inputs, settle
from imas_jax.training import parallel

NAME = "each"
GOAL = "report"
RUNS = "runs"  # folder of the clips' workdirs


@parallel.compile_once()
def work(run: Run) -> Output:
    """Finish the run of every clip, one after the other."""
    if run.config.restore:
        raise UserError(
            f"restore = {run.config.restore!r}",
            "nothing to restore: every clip trains its own network",
            "leave --config.restore out, or --config.stage=each for one network that "
            "predicts all clips",
        )
    clips = inputs.clips(run.config)
    configs = [clip_config(run.config, clip.name) for clip in clips]
    _check(configs)
    names = [clip.name for clip in clips]
    for number, (name, config) in enumerate(zip(names, configs, strict=True), start=1):
        logging.info("each: %s (%d of %d)", name, number, len(clips))
        Run(config, tuple(run.stages.values())).make(GOAL)
        if parallel.process()[0] == 0:
            _link(run.workdir, name)
            _write_index(run.workdir, names[:number])
    logging.info("all masks: %s", run.workdir / "masks")
    logging.info("all reports: %s", run.workdir / NAME / "index.html")
    return Output(digest(names), {"clips": names})


def clip_config(config: ConfigDict, name: str) -> ConfigDict:
    """Return the config of one clip's run, with what it leaves open chosen for it.

    Args:
        config: The tool's; its `workdir` holds the runs of all clips.
        name: The clip.
    """
    alone = config.copy_and_resolve_references().unlock()
    alone.update({"stage": "all", "workdir": str(Path(config.workdir) / RUNS / name)})
    alone.data.sequences = (name,)
    logging.info("%s:", name)
    return settle.settle(alone.lock())


def _check(configs: list[ConfigDict]) -> None:
    """Refuse what some clip's run would refuse after others took their time."""
    problems, fixes = ProblemList(), []
    for config in configs:
        try:
            checks.check(config, GOAL)
        except UserError as error:
            problems.add(config.data.sequences[0], error.found)
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


def _write_index(workdir: Path, names: list[str]) -> None:
    """Write a page of pictures that lead to the reports, whole or not at all."""
    parts = []
    for name in names:
        folder = f"../{RUNS}/{quote(name)}/report"
        parts.append(
            f'<h2>{html.escape(name)}</h2><a href="{folder}/report.html">'
            f'<img src="{folder}/overview.jpg" alt="{html.escape(name)}"></a>'
        )
    page = (
        '<!doctype html><meta charset="utf-8"><title>imas_jax</title><style>'
        "body{font:16px sans-serif;max-width:60rem;margin:2rem auto;padding:0 1rem}"
        f"img{{max-width:100%}}</style>{''.join(parts)}\n"
    )
    files.write_text(workdir / NAME / "index.html", page)
