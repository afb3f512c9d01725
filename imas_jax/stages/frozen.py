"""Features of a frozen backbone: computed once, kept on disk, read by all stages.

With `model.trained = "heads"` (ours; the paper trains all) the backbone stays as its
weights have it, so what it sees in a frame never changes and a training step is that of
the heads alone. Frames are seen whole, at inference size, as they are: augmentation
that makes new pixels is off.

A file holds the features of one frame in half precision. It is named by the frame's
pixels, its folder by all that the features depend on besides, so what is found is
right, whoever made it; and it begins with a checksum, so what is damaged is not taken.
The folder may be deleted at any time.
"""

import contextlib
import dataclasses
import hashlib
import zlib
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np
from absl import logging
from jaxtyping import UInt8
from ml_collections import ConfigDict

from imas_jax import files
from imas_jax.conventions import Features, Tree
from imas_jax.data.clips import Clip
from imas_jax.errors import UserError
from imas_jax.models.segmenter import Segmenter
from imas_jax.runs.records import digest
from imas_jax.stages import shares
from imas_jax.stages.predictor import sample
from imas_jax.training import checkpoints, parallel

FOLDER = "features"
PARTS = ("backbone",)  # of the network, what is frozen
HEADER = np.dtype("<u4")  # a file's checksum


def parts(config: ConfigDict) -> tuple[str, ...]:
    """Return the parts of the network that are not trained."""
    return PARTS if config.model.trained == "heads" else ()


def open_store(
    config: ConfigDict, workdir: Path, model: Segmenter, variables: Tree
) -> "FrozenFeatures | None":
    """Open the features of a run's network; None where its backbone is trained.

    Args:
        config: The whole config, or a stage's view of it.
        workdir: Of the run; the features lie in it.
        model: The network.
        variables: All of the network's, the backbone's among them.
    """
    if not parts(config):
        return None
    seen = {
        kind: {part: tree[part] for part in PARTS if part in tree}
        for kind, tree in variables.items()
    }
    fields = {name: config.model[name] for name in ("backbone", "output_stride")}
    about = [
        checkpoints.digest(checkpoints.named(seen, np.asarray)),
        {**fields, "merge": config.model.feature_merging},
        [config.precision, config.predict.short_side],
    ]
    folder = workdir / FOLDER / digest(about)
    return FrozenFeatures(model, seen, config.predict.short_side, folder)


class FrozenFeatures:
    """What a frozen backbone sees in frames.

    Args:
        model: The network.
        variables: The backbone's.
        short_side: Frames are seen at this size, pixels; 0 is their own.
        folder: Where features are kept.
    """

    def __init__(
        self, model: Segmenter, variables: Tree, short_side: int, folder: Path
    ):
        self._model, self._variables = model, variables
        self._short_side, self._folder = short_side, folder
        self._spread: parallel.Spread | None = None
        self._known: dict[tuple[int, ...], Features] = {}

    def __call__(self, frames: Sequence[UInt8[np.ndarray, "h w 3"]]) -> list[Features]:
        """Return frames' features, float16: those that are kept, or new ones."""
        found = [self._read(self._path(frame), frame.shape) for frame in frames]
        lacking = [f for f, one in zip(frames, found, strict=True) if one is None]
        made = self._compute(lacking)
        return [next(made) if one is None else one for one in found]

    def keep(
        self, clips: Sequence[Clip], share: shares.Share = shares.ALONE
    ) -> "list[ClipFeatures]":
        """Compute and write the features that are not there yet.

        Args:
            clips: Of every frame of which they are wanted.
            share: Of the clips, of which this process computes its part.

        Returns:
            The features of each clip, read when they are asked for.

        Raises:
            UserError: If a frame has none in half precision, or the disk is full.
        """
        mine = share.of(clips)
        own: dict[str, list[str]] = {clip.name: [] for clip in mine}
        made, total = 0, sum(len(clip.frames) for clip in mine)
        waiting: deque[Path] = deque()  # for what is computed of their frames

        def lacking() -> Iterator[np.ndarray]:
            for clip in mine:
                for t in range(len(clip.frames)):
                    frame = clip.read(t)
                    path = self._path(frame)
                    own[clip.name].append(path.name)
                    if self._read(path, frame.shape) is None:
                        waiting.append(path)
                        yield frame

        done = self._compute(lacking())
        for seen in share.progress(done, total, "features", "frame"):
            self._write(waiting.popleft(), seen, total - made)
            made += 1
        told = "features of %d frames computed, of %d they were there; in %s"
        logging.info(told, made, total - made, self._folder)
        names = share.join(own)
        return [
            ClipFeatures(
                self,
                tuple(self._folder / name for name in names[clip.name]),
                (*clip.size, 3),
            )
            for clip in clips
        ]

    def read(self, path: Path, shape: tuple[int, ...]) -> Features:
        """Read what `keep` found.

        Args:
            path: The frame's file.
            shape: Of the frame.

        Raises:
            UserError: If it is lost or damaged by now.
        """
        found = self._read(path, shape)
        if found is None:
            raise UserError(
                f"the features in {path} are lost or damaged",
                "a file that nobody else touches while it is read",
                "run the same command again: it computes them anew",
            )
        return found

    def _see(self, variables: Tree, frames: jax.Array) -> Features:
        pixels = sample(frames, self._short_side)
        seen: Any = self._model.apply(variables, pixels, False, method="features")
        if not self._model.spec.feature_merging:
            seen = Features(None, seen.deep)
        return jax.tree.map(lambda x: x[0].astype(np.float16), seen)

    def _compute(self, frames: Iterable[np.ndarray]) -> Iterator[Features]:
        """Yield what is seen in each frame, one frame on each device."""
        if self._spread is None:
            self._spread = parallel.Spread(self._see, self._variables)
        for seen in self._spread.each(frame[None] for frame in frames):
            if not all(np.isfinite(one).all() for one in jax.tree.leaves(seen)):
                raise UserError(
                    "features of a frame are too large for half precision, or no "
                    "numbers",
                    f"weights whose features are below {np.finfo(np.float16).max:.0f}",
                    "take other weights, or train them: --config.model.trained=all",
                )
            yield seen

    def _path(self, frame: np.ndarray) -> Path:
        key = hashlib.sha256(f"{frame.shape}".encode())
        key.update(np.ascontiguousarray(frame).data)
        return self._folder / f"{key.hexdigest()[:32]}.bin"

    def _read(self, path: Path, shape: tuple[int, ...]) -> Features | None:
        """Return what a file holds; None if it is not there or damaged."""
        try:
            content = path.read_bytes()
        except FileNotFoundError:
            return None
        wanted = self._shapes(shape)
        leaves = jax.tree.leaves(wanted)
        values = memoryview(content)[HEADER.itemsize :]
        size = sum(leaf.size for leaf in leaves) * leaves[0].dtype.itemsize
        if len(values) != size or content[: HEADER.itemsize] != _checksum(values):
            logging.warning("%s is damaged: computed anew", path)
            return None
        flat, parts, at = np.frombuffer(values, np.float16), [], 0
        for leaf in leaves:
            parts.append(flat[at : at + leaf.size].reshape(leaf.shape))
            at += leaf.size
        return jax.tree.unflatten(jax.tree.structure(wanted), parts)

    def _write(self, path: Path, seen: Features, left: int) -> None:
        values = b"".join(leaf.tobytes() for leaf in jax.tree.leaves(seen))
        path.parent.mkdir(parents=True, exist_ok=True)
        files.check_room(path.parent, left * len(values), "the features of all frames")
        # Clips of another process may hold the same frame: its file is as good.
        with contextlib.suppress(files.BusyError), files.aside(path) as draft:
            draft.write_bytes(_checksum(values) + values)

    def _shapes(self, shape: tuple[int, ...]) -> Features:
        """Return shapes and types of the features of frames of a shape."""
        if shape not in self._known:
            frames = jax.ShapeDtypeStruct((1, *shape), np.uint8)
            self._known[shape] = jax.eval_shape(self._see, self._variables, frames)
        return self._known[shape]


@dataclasses.dataclass(frozen=True)
class ClipFeatures(Sequence[Features]):
    """The features of a clip's frames; each is read from its file when asked for.

    Attributes:
        store: Reads them.
        paths: One a frame.
        shape: Of the frames.
    """

    store: FrozenFeatures
    paths: tuple[Path, ...]
    shape: tuple[int, ...]

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, index: Any) -> Any:
        """Return the features of one frame."""
        return self.store.read(self.paths[index], self.shape)


def _checksum(values: bytes | memoryview) -> bytes:
    return np.array(zlib.crc32(values), HEADER).tobytes()
