"""What several stages open: clips, flow, and what training wrote of itself."""

import contextlib
import json
from pathlib import Path

from absl import logging
from ml_collections import ConfigDict

from imas_jax.data import clips as clips_lib
from imas_jax.data import shots
from imas_jax.demo import render
from imas_jax.flow.files import FlowFolder
from imas_jax.runs.run import Run
from imas_jax.stages import flow as flow_stage
from imas_jax.training import parallel

DEMO = "demo"


def locate(config: ConfigDict) -> ConfigDict:
    """Return the config with the demo's clips as the DAVIS folder they are rendered to.

    From here on nothing knows whether a clip was filmed or rendered.
    """
    if config.data.layout != DEMO:
        return config
    root = Path(config.data.root or Path(config.workdir) / "clips")
    if not root.is_dir():
        logging.info("rendering the demo's clips into %s", root)
    if parallel.process()[0] == 0:
        render.render_demo(root, config.seed)
    parallel.wait_for_all()
    located = config.copy_and_resolve_references()
    located.data.update({"root": str(root), "layout": "davis"})
    return located.lock()


def clips(run: Run) -> tuple[clips_lib.Clip, ...]:
    """Return the run's clips, checked; they are found once."""
    return run.clips.find(run.config.data)


def training_clips(run: Run) -> tuple[clips_lib.Clip, ...]:
    """Return the run's clips as flow and training see them: with cuts, not too long."""
    return run.clips.for_training(run.config)


def trained(config: ConfigDict, clip: clips_lib.Clip) -> clips_lib.Clip:
    """Return one clip as flow and training see it."""
    return shots.for_training((clip,), config)[0]


def flow(run: Run) -> FlowFolder:
    """Return where the run's flow lies, or will lie.

    Once it is made this is known without the estimator's weights.
    """
    folder = run.workdir / "flow"
    if (folder / "result.json").is_file():
        root = Path(run.config.flow.root or folder)
        return FlowFolder(root, run.values("flow")["digest"])
    return flow_stage.flow_folder(run.config, folder)


def training_timing(folder: Path) -> dict[str, float]:
    """Read `timing.json`: steps, seconds, and the share of them waiting for data."""
    path = folder / "timing.json"
    return json.loads(path.read_text()) if path.is_file() else {}


def training_log(folder: Path) -> list[dict[str, float]]:
    """Read `metrics.jsonl`: one record a step; damaged lines are left out and told."""
    path = folder / "metrics.jsonl"
    if not path.is_file():
        return []
    lines, found = path.read_text(errors="replace").splitlines(), []
    for line in lines:
        with contextlib.suppress(ValueError):
            found.append(json.loads(line))
    if len(found) < len(lines):
        logging.warning("%s: %d damaged line(s)", path, len(lines) - len(found))
    return found
