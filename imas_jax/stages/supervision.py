"""What weights that learned from human labels had a part in, for tables and reports.

Only with `model.allow_supervised` there can be any. Each stage notes it with what it
made, so that it is known too of what a run takes from another (`restore`, `init`).
"""

from pathlib import Path

from ml_collections import ConfigDict

from imas_jax.models import named
from imas_jax.runs import records, restoring
from imas_jax.runs.run import Run
from imas_jax.stages import features

NOTED = "supervised"  # in the values of a stage
STAGES = ("discover", "align", "refine")


def of_start(config: ConfigDict, stage: str) -> list[str]:
    """Say what the weights that a training stage starts from learned from.

    Args:
        config: The stage's.
        stage: "discover" or "refine".
    """
    if config[stage].init:
        found = restoring.last_trained(Path(config[stage].init))
        result = records.read_json(found.folder / "result.json", "outputs")
        return list(result["outputs"].get(NOTED, ()))
    if stage == "refine":  # stage 1 of the same run has noted its own
        return []
    return _of(config, config.model.weights, "model.weights")


def of_features(config: ConfigDict, kind: str) -> list[str]:
    """Say what frozen features of a kind (`features.THRESHOLDS`) learned from."""
    return _of(config, *features.weights_name(config)) if kind == "weights" else []


def of_run(run: Run) -> str:
    """Say everything that a run's masks owe to human labels so far; "" if nothing."""
    told: list[str] = []
    for stage in STAGES:
        if (run.folder(stage) / "result.json").is_file():
            told += run.values(stage).get(NOTED, ())
    return "; ".join(dict.fromkeys(told))


def _of(config: ConfigDict, text: str, field: str) -> list[str]:
    if not (text and config.model.allow_supervised):
        return []
    told = named.supervision(text)
    return [f"{told} ({field})"] if told else []
