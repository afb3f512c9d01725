"""Where numbers and pictures of a training run go while it runs.

TensorBoard events, JSON lines, and on request Weights & Biases or trackio, under the
same names: those of `metrics.jsonl`.
"""

import json
import uuid
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import numpy as np
from jaxtyping import UInt8

from imas_jax import files

Pictures = Mapping[str, UInt8[np.ndarray, "_ _ 3"]]


@runtime_checkable
class Sink(Protocol):
    """Takes what a step gave."""

    def scalars(self, step: int, values: Mapping[str, float]) -> None:
        """Take numbers by name."""

    def pictures(self, step: int, pictures: Pictures) -> None:
        """Take RGB pictures by name."""

    def close(self) -> None:
        """Write what is still held."""


class TensorBoard:
    """Event files in a folder; see them with `tensorboard --logdir`.

    Args:
        folder: Of the event files.
        first_step: Training continues from here: events of later steps, of a run that
            was killed, are not shown.
    """

    def __init__(self, folder: Path, first_step: int):
        # Here: half a second that only training needs.
        from tensorboardX import SummaryWriter

        purge = first_step + 1 if any(folder.glob("events*")) else None
        self._writer: Any = SummaryWriter(str(folder), purge_step=purge, flush_secs=10)

    def scalars(self, step: int, values: Mapping[str, float]) -> None:
        """Write one point of each curve."""
        for name, value in values.items():
            self._writer.add_scalar(name, value, step)

    def pictures(self, step: int, pictures: Pictures) -> None:
        """Write pictures."""
        for name, picture in pictures.items():
            self._writer.add_image(name, picture, step, dataformats="HWC")

    def close(self) -> None:
        """Flush and close."""
        self._writer.close()


class WeightsAndBiases:
    """A run at Weights & Biases; the same folder continues the same run.

    Args:
        project: Its project.
        folder: The stage's folder; it names the run, and notes its id.
    """

    def __init__(self, project: str, folder: Path):
        import wandb  # optional: `stages/checks.py` has seen that it is there

        self._library: Any = wandb
        self._run: Any = wandb.init(
            project=project,
            id=_own_id(folder / "wandb-id"),
            name=_name(folder),
            dir=str(folder),
            resume="allow",
        )

    def scalars(self, step: int, values: Mapping[str, float]) -> None:
        """Log numbers."""
        self._run.log(dict(values), step=step)

    def pictures(self, step: int, pictures: Pictures) -> None:
        """Log pictures."""
        shown = {name: self._library.Image(p) for name, p in pictures.items()}
        self._run.log(shown, step=step)

    def close(self) -> None:
        """Finish the run."""
        self._run.finish()


class Trackio(WeightsAndBiases):
    """A run in trackio's files on this machine; see it with `trackio show`.

    Args:
        project: Its project.
        folder: As above; runs of trackio have no id but their name.
    """

    def __init__(self, project: str, folder: Path):
        import trackio  # optional: `stages/checks.py` has seen that it is there

        name = f"{_name(folder)}-{_own_id(folder / 'trackio-id')[:8]}"
        self._library: Any = trackio
        self._run: Any = trackio.init(project, name=name, resume="allow", embed=False)


class JsonLines:
    """Numbers as one JSON object a line; pictures are left to others.

    Lines beyond the step a run continues from are dropped.
    """

    def __init__(self, path: Path, first_step: int):
        self._path = path
        old = path.read_text().splitlines() if path.is_file() else []
        kept = [line for line in old if _step(line) <= first_step]
        files.write_text(path, "".join(line + "\n" for line in kept))

    def scalars(self, step: int, values: Mapping[str, float]) -> None:
        """Append a line."""
        with self._path.open("a") as file:
            file.write(json.dumps({"step": step, **values}) + "\n")

    def pictures(self, step: int, pictures: Pictures) -> None:
        """Take nothing."""

    def close(self) -> None:
        """Do nothing: every line is written at once."""


def _name(folder: Path) -> str:
    return "-".join(folder.parts[-3:])


def _own_id(note: Path) -> str:
    """Return the id noted in a file; the first time it is drawn."""
    if not note.is_file():
        files.write_text(note, uuid.uuid4().hex)
    return note.read_text()


def _step(line: str) -> float:
    """Return a line's step; a half written line has none and is dropped."""
    try:
        return json.loads(line)["step"]
    except (json.JSONDecodeError, KeyError):
        return float("inf")
