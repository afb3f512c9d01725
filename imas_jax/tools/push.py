"""Pushes what a run has learned to the Hugging Face hub, as a tool.

What goes there is what others need to predict with it and to see what it was: configs
and results of its stages, training curves, the last checkpoint, scores. Never frames,
flow, masks or features; the report, which shows frames, only if asked for
(`push.report`).
"""

import os
from collections.abc import Mapping
from pathlib import Path

from absl import logging

from imas_jax.errors import UserError
from imas_jax.evaluation import tables
from imas_jax.runs import hosted, hub, recipes, records, restoring
from imas_jax.runs.run import Output, Run
from imas_jax.stages import network, report, supervision

TRAINING = ("metrics.jsonl", "timing.json")
ABOUT = ("config.json", "result.json")
SCORES = ("metrics.json", "per_sequence.csv", "tables.md")
LEARNS = ("discover", "refine")


def work(run: Run) -> Output:
    """Push the run in this workdir."""
    wanted = run.config.push
    return Output("pushed", send(run.workdir, wanted.to, wanted.private, wanted.report))


def push(
    run: str | os.PathLike[str], to: str, *, private: bool = True, report: bool = False
) -> str:
    """Push what a run has learned to the Hugging Face hub, as one commit.

    Its configs, results, curves, scores and last checkpoint; never frames, flow or
    masks. What goes there, and how large it is, is told to the logger "imas_jax".

    Args:
        run: The run's workdir; stages discover and align must be finished there.
        to: `hf://user/name`; made if it is not there.
        private: Whether a repository that is made is.
        report: Whether the report goes too. It shows frames.

    Returns:
        The address with its revision, for `load` and `config.restore`.

    Raises:
        UserError: If it is no such run, or the hub refuses.
    """
    with hosted.heard(None):
        return str(send(hosted.absolute(run), to, private, report)["address"])


def send(workdir: Path, to: str, private: bool, pages: bool) -> dict[str, object]:
    """Push a run as `push` does; return its address, bytes and number of files."""
    hub.read_address(to)
    found = contents(workdir, pages)
    size = sum(file.stat().st_size for file in found.values())
    logging.info("pushing %d files, %.1f MB, to %s:", len(found), size / 1e6, to)
    for line in listed(found):
        logging.info("  %s", line)
    address = hub.publish(found, to, private, card(workdir, to))
    return {"address": address, "bytes": size, "files": len(found)}


def contents(workdir: Path, pages: bool = False) -> dict[str, Path]:
    """Return what is pushed of a run, by name.

    Args:
        workdir: Of the run; stages that it took from others are looked up there.
        pages: Whether the report is among it.

    Raises:
        UserError: If it has no object channel, or no sound checkpoint.
    """
    last = restoring.last_trained(workdir)
    stages = ["discover", "align"] + ["refine"] * (last.stage == "refine")
    folders = {name: restoring.origin(workdir, name) for name in stages}
    if not (folders["align"] / "result.json").is_file():
        raise UserError(
            f"no object channel is chosen in {workdir}",
            "a run that finished stage align",
            "finish it with --config.stage=align",
        )
    folders["predict"] = workdir / "predict"
    found = {
        f"{name}/{file}": folder / file
        for name, folder in folders.items()
        for file in ((*ABOUT, *TRAINING) if name in LEARNS else ABOUT)
    }
    del found["predict/result.json"]  # it names masks, which stay here
    found |= {f"evaluate/{n}": workdir / "evaluate" / n for n in (*ABOUT, *SCORES)}
    if pages:
        found[f"report/{report.HTML}"] = workdir / "report" / report.HTML
    step = _newest_sound(workdir, last)
    checkpoint = last.folder / "checkpoints" / str(step)
    for file in sorted(checkpoint.rglob("*")):
        inside = file.relative_to(last.folder).as_posix()
        found[f"{last.stage}/{inside}"] = file
    return {name: file for name, file in found.items() if file.is_file()}


def listed(found: Mapping[str, Path]) -> list[str]:
    """Say what is pushed: single files, and of checkpoints the sum."""
    sizes: dict[str, int] = {}
    for name, file in found.items():
        parts = Path(name).parts
        kept = "/".join(parts[:3]) + "/" if "checkpoints" in parts else name
        sizes[kept] = sizes.get(kept, 0) + file.stat().st_size
    return [f"{name}  {size / 1e6:.3f} MB" for name, size in sizes.items()]


def card(workdir: Path, to: str) -> str:
    """Return the page that introduces a run at the hub."""
    address = hub.SCHEME + hub.read_address(to)[0]
    lines = [
        *("---", "library_name: imas_jax", "tags: [video-object-segmentation]", "---"),
        *("# A run of imas_jax", ""),
        "Masks of what moves in a video, learned without annotations.",
        *("", "```python", "import imas_jax", ""),
        f'network = imas_jax.load("{address}")',
        *("masks = network.segment(frames)", "```", ""),
        f"On the command line: `--config.restore={address}`. "
        f"Every file has its SHA-256 in `{hub.LIST}`.",
    ]
    owed = [
        text
        for stage in ("discover", "align", "refine")
        if (path := restoring.origin(workdir, stage) / "result.json").is_file()
        for text in records.read_json(path, "outputs")["outputs"].get(
            supervision.NOTED, []
        )
    ]
    lines += ["", *dict.fromkeys(tables.SUPERVISED + text for text in owed)]
    if (scores := workdir / "evaluate" / "tables.md").is_file():
        lines += ["## Scores", "", scores.read_text(encoding="utf-8")]
    return "\n".join(lines).rstrip() + "\n"


def _newest_sound(workdir: Path, last: restoring.Trained) -> int:
    """Return the step whose checkpoint `load` would take, digest and all."""
    config = recipes.load("davis")
    config.restore = str(workdir)
    config.restore_until = "refine" if last.stage == "refine" else "align"
    config = restoring.adopt_network(config)
    return int(network.final_state(config, last.folder, last.stage).step)
