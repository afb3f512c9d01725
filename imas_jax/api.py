"""The Python API: what `import imas_jax` offers, on the protocol that `main.py` runs.

A call makes a config from a recipe, overrides and a source of frames, finishes the
stages that are wanted in a workdir, and returns what reads results from there. So what
was killed goes on, and what is finished is not repeated, as on the command line.
"""

import itertools
import os
import shutil
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeAlias, overload

import numpy as np
from jaxtyping import Bool
from ml_collections import ConfigDict

from imas_jax import files
from imas_jax import protocol as stages
from imas_jax.data import arrays, clips, layouts
from imas_jax.errors import UserError
from imas_jax.evaluation import one_clip
from imas_jax.evaluation.protocol import Protocol
from imas_jax.progress import Progress
from imas_jax.progress import progress as shown
from imas_jax.report import exports
from imas_jax.runs import hosted, hub, recipes, records, restoring
from imas_jax.runs.run import Run
from imas_jax.stages import (
    fields,
    mask_export,
    network,
    object_masks,
    predict,
    report,
    soft_masks,
)
from imas_jax.stages.predictor import Predictor
from imas_jax.training import compiled

Path_: TypeAlias = str | os.PathLike[str]
Frames: TypeAlias = Iterable[arrays.Frame]
Mask: TypeAlias = Bool[np.ndarray, "h w"]
Listener: TypeAlias = Callable[[Progress], None]

_CALLS = itertools.count()
OF_MASKS = ("predict", "crf", "target.workers")  # what decides a network's masks
FRAMES = Path("input/clip")  # where frames that come as arrays lie in a workdir


def segment(
    source: Path_ | Frames,
    *,
    config: str | ConfigDict = "video",
    overrides: Mapping[str, Any] | None = None,
    workdir: Path_ | None = None,
    progress: Listener | None = None,
) -> "Result":
    """Find what moves in one clip: learn it from that clip alone, then every mask.

    A minute or so for a hundred frames on two CPU cores; frames are streamed, so memory
    does not grow with length.

    Args:
        source: A video file, a folder of frames, or RGB uint8 arrays `(h, w, 3)` of one
            size, which are taken one at a time and stored losslessly in the workdir.
        config: A recipe's name or path, or a config that one of them made.
        overrides: Fields by dotted name, e.g. `{"discover.steps": 50}`.
        workdir: Where everything is written, and goes on: after Ctrl-C the same call
            continues, and when finished it returns at once. None takes a temporary
            folder, removed with the result and its masks, or kept and named in a note
            on the exception where an interrupt or a failing iterator ends the call.
        progress: Is told how far the work is. What it raises stops the work.

    Raises:
        UserError: With what was found, what was expected and what to do; before any
            work as far as it can be told then.
        Stopped: For Ctrl-C or SIGTERM while training, when the state is saved; it is
            a KeyboardInterrupt. (Handlers of both are set while training only.)

    From the second call in a process on, all programs that JAX has compiled are let go
    of first, those of others too: many clips would end the process otherwise.
    """
    folder = hosted.Folder(workdir)
    with hosted.heard(progress), folder.kept_if_broken_off():
        made = _config(config, overrides, folder.path)
        made.stage = "predict"
        if isinstance(source, str | os.PathLike):
            made.data.root = str(hosted.absolute(source))
            _check_one(made.data)
        else:
            made.data.root = str(arrays.stored(folder.path / FRAMES, source))
            made.data.layout = "folder"
        _let_go()
        return Result(stages.run(made), folder)


def load(run: Path_) -> "Network":
    """Open the network that a run has trained, to segment other frames with it.

    Args:
        run: Workdir of a run that finished stage align, or hf://user/name[@revision].

    Raises:
        UserError: If it is no such run, or does not come whole.
    """
    with hosted.heard(None):
        folder = hub.fetch(str(run)) if hub.is_address(run) else hosted.absolute(run)
    return Network(folder)


def train(
    config: str | ConfigDict,
    *,
    overrides: Mapping[str, Any] | None = None,
    workdir: Path_ | None = None,
    progress: Listener | None = None,
) -> "Network":
    """Do what a recipe says, up to its `stage`, and open the network it trained.

    Args:
        config: A recipe's name or path, as `davis` or `davis:runlocal`, or a config
            that one of them made.
        overrides: Fields by dotted name, e.g. `{"data.root": "/data/DAVIS"}`.
        workdir: None takes the recipe's, e.g. `runs/davis`. It goes on as `segment`'s.
        progress: As in `segment`.

    Raises:
        UserError, Stopped: As `segment`.
    """
    with hosted.heard(progress):
        made = _config(config, overrides, workdir)
        if made.stage not in ("all", *(stage.name for stage in stages.STAGES)):
            raise UserError(
                f"stage = {made.stage!r}, which trains no network of its own",
                "all, or a stage from align on",
                "call segment for each clip, or use the command `imas-jax`",
            )
        _let_go()
        done = stages.run(made)
    return Network(done.workdir)


def score(
    masks: "Result | Masks | Iterable[Mask] | Path_",
    annotations: Iterable[Mask | None] | Path_,
    protocol: Protocol = "frame_mean",
) -> one_clip.Score:
    """Score one clip's masks: J and F, the DAVIS definitions.

    Args:
        masks: What `segment` returns, bool arrays in order, or a folder of mask files.
        annotations: Bool arrays in order, None where a frame has none, or a folder of
            files; files are matched by the frames' names where both sides have them.
        protocol: "frame_mean", "sequence_mean" or "official"; see `Score`.

    Raises:
        UserError: If frames have no mask, or masks are of another size or no bool
            arrays.
    """
    if isinstance(masks, Result):
        masks = masks.masks
    with hosted.heard(None):
        given = masks.folder if isinstance(masks, Masks) else masks
        return one_clip.score(given, annotations, protocol)


class Masks(Sequence[Mask]):
    """A clip's masks, bool `(h, w)` at the frames' own size, read when asked for.

    Attributes:
        folder: Where they lie, one PNG a frame.
        names: Of the frames, in order.
    """

    def __init__(self, folder: Path, names: Sequence[str], kept: "hosted.Folder"):
        self.folder, self.names, self._kept = folder, tuple(names), kept

    def __len__(self) -> int:
        return len(self.names)

    @overload
    def __getitem__(self, index: int) -> Mask: ...

    @overload
    def __getitem__(self, index: slice) -> list[Mask]: ...

    def __getitem__(self, index: int | slice) -> Mask | list[Mask]:
        if isinstance(index, slice):
            return [self[t] for t in range(*index.indices(len(self)))]
        return soft_masks.read_png(self.folder / f"{self.names[index]}.png")

    def __iter__(self) -> Iterator[Mask]:
        return (self[t] for t in range(len(self)))


class Result:
    """What `segment` found in a clip.

    Attributes:
        workdir: Where everything lies; a temporary one is removed with this object.
        name: Of the clip.
        masks: Of every frame, in order.
    """

    def __init__(self, run: Run, folder: "hosted.Folder"):
        self._run, self._folder = run, folder
        self.workdir = folder.path
        (self._clip,) = run.clips.find(run.config.data)
        self.name = self._clip.name
        names = [frame.name for frame in self._clip.frames]
        self.masks = Masks(
            self.workdir / "predict" / predict.MASKS / self.name, names, folder
        )

    def save(
        self,
        to: Path_,
        formats: str | Sequence[str] | None = None,
        *,
        rate: float | None = None,
        progress: Listener | None = None,
    ) -> list[Path]:
        """Write the masks for other tools: docs/formats.md says which opens what.

        Args:
            to: A file, e.g. "clip.webm", whose suffix tells the format; or a folder,
                which gets `<format>/<clip>...` of each. What is there is written over.
            formats: "png" (a folder's default), "overlay", "webm_alpha", "coco", ...
            rate: Frames a second of films; None takes the clip's own, 24 of frames.
            progress: As in `segment`.

        Returns:
            The files, or folders of files, in the order of the formats.

        Raises:
            UserError: For unknown formats, with all of them; for one that wants the
                extra `imas_jax[formats]`; for a file that cannot hold what is asked.
        """
        names = [formats] if isinstance(formats, str) else formats
        paths = exports.destinations(hosted.absolute(to), names, self.name)
        with hosted.heard(progress):
            steps = mask_export.export(self._run, self._clip, paths, rate)
            for _ in shown(steps, len(self.masks), "saving", "frame"):
                pass
        return list(paths.values())

    def report(self, to: Path_ | None = None, progress: Listener | None = None) -> Path:
        """Draw the report, if it is not there, and return the HTML file's path.

        Args:
            to: Also copy the page there; it is one file that needs nothing else.
            progress: As in `segment`.
        """
        with hosted.heard(progress):
            self._run.make("report")
        page = self.workdir / "report" / report.HTML
        return page if to is None else _copied(page, hosted.absolute(to))


class Network:
    """A trained network, for frames it has not seen: masks by appearance alone.

    No flow is computed and no motion looked at, so an object that stands still gets a
    mask too. Frames are segmented as the run's own final masks were (`predict.*` of the
    run, CRF included), but for motion evidence and agreement over the clip.

    Attributes:
        workdir: The run's.
        channels: The object's among the network's mask channels.
    """

    def __init__(self, workdir: Path):
        self.workdir = workdir
        self._last = restoring.last_trained(workdir)
        aligned = restoring.origin(workdir, "align") / "result.json"
        if not aligned.is_file():
            raise UserError(
                f"no object channel is chosen in {workdir}",
                "a run that finished stage align",
                "finish it with --config.stage=align",
            )
        told = records.read_json(aligned, "outputs")["outputs"]
        self._made: tuple[str, Predictor] | None = None
        self.channels: tuple[int, ...] = tuple(told["channels"])

    def segment(
        self,
        frames: Path_ | Frames,
        *,
        overrides: Mapping[str, Any] | None = None,
        progress: Listener | None = None,
    ) -> Iterator[Mask]:
        """Yield the mask of each frame, in order; a few frames are held at a time.

        Args:
            frames: A video file, a folder of frames, or RGB uint8 arrays `(h, w, 3)`
                of one size, without end if need be. Those with a short side over 480
                are worked on at 480, masks have the frames' own size.
            overrides: Fields of `predict`, e.g. `{"predict.crf": ""}`: no CRF.
            progress: Is told of every frame; of an iterator `total` is 0.

        Raises:
            UserError: At once for a path or an override, at its turn for a frame that
                is no such array.
        """
        config = self._config(overrides)
        total, source = 0, frames
        if isinstance(frames, str | os.PathLike):
            config.data.root = str(hosted.absolute(frames))
            _check_one(config.data)
            (clip,) = clips.find_clips(config.data, fewest=1)
            total, source = len(clip.frames), map(clip.read, range(len(clip.frames)))
        with hosted.heard(None):
            predictor = self._predictor(config.lock())
        found = object_masks.masks_of_stream(
            config, predictor, arrays.checked(source), self.channels
        )
        return hosted.iterated(found, progress, total)

    def _config(self, overrides: Mapping[str, Any] | None) -> ConfigDict:
        """Return the run's network, and how it predicts."""
        config = recipes.load("davis")
        config.restore = str(self.workdir)
        config.restore_until = "refine" if self._last.stage == "refine" else "align"
        config.data.update({"layout": "auto", "split": ""})
        config = restoring.adopt_network(config).unlock()
        # A run that has not predicted yet has noted nothing: as in configs/davis.py.
        noted, known = self.workdir / "predict" / "config.json", records.flatten(config)
        told = records.read_json(noted, "config")["config"] if noted.is_file() else {}
        ours = {k: v for k, v in told.items() if k in known and _is_of_masks(k)}
        config.update_from_flattened_dict(ours)
        flat = recipes.flat_fields(overrides or {})
        if others := [field for field in flat if not _is_of_masks(field)]:
            raise UserError(
                f"overrides of {', '.join(others)}",
                f"fields of {', '.join(OF_MASKS)}: the network is trained",
                "leave them out, or train anew",
            )
        recipes.override(config, flat)
        fields.check(config, stages.names())
        return config

    def _predictor(self, config: ConfigDict) -> Predictor:
        """Read the weights once; compile once for each way of predicting."""
        how = config.predict.to_json()
        if self._made is None or self._made[0] != how:
            stage = self._last.stage
            state = network.final_state(config, self._last.folder, stage)
            variables = state.best_variables
            # One device: several would wait for so many times more frames of a stream.
            made = network.predictor(config, self.workdir, variables, devices=1)
            self._made = how, made
        return self._made[1]


def _let_go() -> None:
    """Let go of earlier calls' programs; see `compiled.forget`."""
    if next(_CALLS):
        compiled.forget()


def _config(
    config: str | ConfigDict,
    overrides: Mapping[str, Any] | None,
    workdir: Path_ | None,
) -> ConfigDict:
    """Return a config of one's own to change."""
    if isinstance(config, str):
        made = recipes.load(config)
    else:
        made = config.copy_and_resolve_references().unlock()
    recipes.override(made, overrides or {})
    if workdir is not None:
        made.workdir = str(hosted.absolute(workdir))
    return made


def _is_of_masks(field: str) -> bool:
    return any(field == one or field.startswith(f"{one}.") for one in OF_MASKS)


def _check_one(data: ConfigDict) -> None:
    """Refuse what is no single clip."""
    found = layouts.list_clips(data, layouts.image_set(data, data.split))
    if len(found) != 1:
        raise UserError(
            f"{data.root} holds {len(found)} clips",
            "one video file, or one folder of frames",
            "call segment for each of them, or use the command: imas-jax FOLDER",
        )


def _copied(page: Path, to: Path) -> Path:
    """Copy a file whole, or not at all."""
    target = to / page.name if to.is_dir() else to
    with files.aside(target) as draft:
        shutil.copyfile(page, draft)
    return target
