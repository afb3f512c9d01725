"""What is taken from another run: which of its stages, and its network's shape.

`config.restore` names a run that trained. Its stages up to `config.restore_until` are
used as if they had been made here; those after it are made here. Weights to start a
training from are another matter: `discover.init` and `refine.init`.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ml_collections import ConfigDict

from imas_jax.errors import UserError
from imas_jax.runs import records

TRAINED = ("discover", "align", "refine")  # what can be taken


@dataclass(frozen=True)
class Trained:
    """The last trained stage of a run.

    Attributes:
        stage: "discover" or "refine".
        folder: Its folder.
        identity: Of its weights.
    """

    stage: str
    folder: Path
    identity: str


def brought_in(config: ConfigDict, name: str) -> bool:
    """Tell whether a stage's result is taken from `config.restore`."""
    if not config.restore or name not in TRAINED:
        return False
    return TRAINED.index(name) <= TRAINED.index(config.restore_until)


def told(config: ConfigDict) -> dict[str, Any]:
    """Return what a stage notes for runs that will restore its own: see below.

    `network` is all that decides shapes and which checkpoint is final; `restored` is
    where stages that this run did not make lie.
    """
    network = {
        field: value
        for field, value in records.flatten(config).items()
        if _is_of_network(field) or _is_of_checkpoint(field)
    }
    restored = str(Path(config.restore).resolve()) if config.restore else ""
    return {"network": network, "restored": restored}


def origin(run: Path, name: str) -> Path:
    """Return a trained stage's folder: a run's own, or of the run it took it from."""
    seen = {run}
    while not (run / name).is_dir():
        noted = _newest(run)
        before = Path(noted["restored"]) if noted and noted.get("restored") else None
        if before is None or before in seen:
            break
        seen.add(run := before)
    return run / name


def last_trained(run: Path) -> Trained:
    """Find the weights that a run ended with.

    Raises:
        UserError: If no stage of it is finished that has checkpoints.
    """
    for stage in ("refine", "discover"):
        folder = origin(run, stage)
        result = folder / "result.json"
        if result.is_file() and (folder / "checkpoints").is_dir():
            return Trained(
                stage, folder, records.read_json(result, "identity")["identity"]
            )
    raise UserError(
        f"{str(run)!r} holds no weights of a finished stage",
        "the workdir of a run that finished stage discover",
        "finish that run with --config.stage=discover, or name another",
    )


def network_of(run: Path) -> dict[str, Any]:
    """Return the flat fields that decide a run's network and final checkpoint.

    Raises:
        UserError: If the folder is no run that trained.
    """
    noted = _newest(run)
    if noted is None:
        raise UserError(
            f"{str(run)!r} is not a run",
            "the workdir of a run that trained: it has discover/config.json",
            "name the folder that was that run's --config.workdir",
        )
    # Runs of before noted their whole config only, with paths as they were, and trained
    # all of their network.
    fields = {"model.trained": "all", **noted.get("network", noted["config"])}
    return {
        f: v for f, v in fields.items() if _is_of_network(f) or _is_of_checkpoint(f)
    }


def adopt_network(config: ConfigDict) -> ConfigDict:
    """Return the config with the restored run's network in place of its own.

    Nobody has to repeat `model` and `precision`, nor the `steps`, `ema` and
    `target.when` of stages that are taken; those of stages that are trained here stay.

    Raises:
        UserError: If there is no run at `config.restore`.
    """
    if not config.restore:
        return config
    known = records.flatten(config)
    fields = {
        field: value
        for field, value in network_of(Path(config.restore)).items()
        if field in known
        and (_is_of_network(field) or brought_in(config, _stage_of(field)))
    }
    adopted = config.copy_and_resolve_references().unlock()
    adopted.update_from_flattened_dict(fields)
    return adopted.lock()


def nothing_to_do(config: ConfigDict, goal: str) -> UserError:
    """Say that a stage to be made is taken from another run."""
    place = TRAINED.index(goal)
    fix = f"--config.discover.init={config.restore} in place of restore"
    if place:
        fix = f"--config.restore_until={TRAINED[place - 1]}"
    return UserError(
        f"stage {goal} is taken from {config.restore}: there is nothing to do",
        f"a stage after {config.restore_until} (restore_until), such as report",
        f"to make it here, set {fix}",
    )


def _newest(run: Path) -> dict[str, Any] | None:
    """Read what the last trained stage of a run noted; None if none was begun."""
    noted = [run / stage / "config.json" for stage in reversed(TRAINED)]
    found = [path for path in noted if path.is_file()]
    return records.read_json(found[0], "config") if found else None


def _is_of_network(field: str) -> bool:
    # What a run allows is its own affair.
    allowed = field == "model.allow_supervised"
    return field.split(".")[0] in ("model", "precision") and not allowed


def _is_of_checkpoint(field: str) -> bool:
    name = field.split(".")[-1]
    return _stage_of(field) in TRAINED and name in ("steps", "ema", "when")


def _stage_of(field: str) -> str:
    """Return the stage whose checkpoints a field decides, if it decides any."""
    section = field.split(".")[0]
    return "refine" if section == "target" else section
