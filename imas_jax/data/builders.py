"""TFDS builders: frame pairs and their flow in shards, without annotations.

Every clip is a dataset of its own,

    <folder>/<clip>/<digest>/frame_pairs/<version>/*.array_record-*

whose digest names everything its content depends on. So preparing resumes clip by
clip, a changed frame or setting never meets an old shard, and TFDS, which writes to a
folder `incomplete.*` and renames it, never leaves half a clip that looks whole.

A record is one pair. JPEG frames are copied as they are, others (resized, video,
PNG, ...) are stored as PNG without loss; flow is float16 and uncompressed. Files are
ArrayRecord, TFRecord's indexed successor: any record can be read alone, which is what
shuffles a whole epoch and resumes at any step. Writing needs no TensorFlow.

Shards, and the frames they are of, are checksummed once and then trusted by size and
time (`sealed.py`): opening a large set reads no frame.
"""

import contextlib
import functools
import hashlib
import io
import json
import shutil
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, ClassVar

import cv2
import numpy as np
import tensorflow_datasets as tfds
from absl import logging
from PIL import Image

from imas_jax import errors, files
from imas_jax.data import clips as clips_lib
from imas_jax.data import sealed
from imas_jax.data.training_set import TrainingSet

RECORD_VERSION = "1.0.0"  # raise it when the same inputs give other records
OPEN_SHARDS = 128  # files held open; the system's limit is often 1024
CHECKSUMS = "frames.json"  # in a clip's folder: what its frames were
EXIF_ORIENTATION = 0x0112


class LocalInfo(tfds.core.DatasetInfo):
    """Facts of a dataset that exists nowhere else."""

    def initialize_from_bucket(self) -> None:
        """Do not look for it on TFDS's server, nor leave a temporary folder."""


class FramePairs(tfds.core.GeneratorBasedBuilder):
    """All pairs of one clip.

    Args:
        training_set: Has the clip.
        clip: Number of the clip.
        place: Folder of the dataset, from `places`.
    """

    VERSION = tfds.core.Version(RECORD_VERSION)
    RELEASE_NOTES: ClassVar[dict[str, str]] = {
        RECORD_VERSION: "Frame pairs with forward and backward flow."
    }

    # Nothing is downloaded, so there are no checksums beside this file to look for.
    code_path = None

    def __init__(self, training_set: TrainingSet, clip: int, place: Path):
        self._set, self._clip = training_set, training_set.clips[clip]
        self._indices = training_set.indices_of_clip[clip]
        self._grid = training_set.flow_of(self._indices[0]).shape
        super().__init__(data_dir=place, file_format="array_record")

    def _info(self) -> tfds.core.DatasetInfo:
        image = tfds.features.Image(shape=(*self._clip.size, 3))
        return LocalInfo(
            builder=self,
            description=f"Frame pairs of {self._clip.name} with flow; no annotations.",
            features=tfds.features.FeaturesDict(
                {
                    "first": image,
                    "second": image,
                    "flow": tfds.features.Tensor(
                        shape=self._grid, dtype=np.float16, encoding="bytes"
                    ),
                    "first_index": np.int64,
                    "second_index": np.int64,
                }
            ),
            disable_shuffling=True,  # record k is the clip's pair k
        )

    def _split_generators(self, dl_manager: Any) -> dict[str, Any]:
        return {"train": self._generate_examples()}

    def _generate_examples(self) -> Iterator[tuple[int, dict[str, Any]]]:
        gap = max(p.second - p.first for p in self._set.pairs)
        encoded = functools.lru_cache(gap + 2)(
            functools.partial(encode_frame, self._clip)
        )
        for record, index in enumerate(self._indices):
            pair = self._set.pairs[index]
            # Frames in order, each once in a run of pairs: videos cannot seek.
            frames = [encoded(t) for t in range(pair.first, pair.second + 1)]
            yield (
                record,
                {
                    "first": frames[0],
                    "second": frames[-1],
                    "flow": self._set.flow_of(index),
                    "first_index": pair.first,
                    "second_index": pair.second,
                },
            )


class Shards:
    """Random access to the records of a training set, for tf.data.

    Args:
        training_set: What they were written from.
        folders: One dataset folder a clip, all written.
    """

    def __init__(self, training_set: TrainingSet, folders: Sequence[Path]):
        self._features = tfds.builder_from_directory(folders[0]).info.features
        self._record = np.zeros((len(training_set.pairs), 2), np.int64)
        for clip, indices in enumerate(training_set.indices_of_clip):
            self._record[list(indices), 0] = clip
            self._record[list(indices), 1] = np.arange(len(indices))

        @functools.lru_cache(OPEN_SHARDS)
        def open_clip(clip: int) -> Any:
            raw = tfds.core.decode.DeserializeMethod.RAW_BYTES
            builder = tfds.builder_from_directory(folders[clip])
            return builder.as_data_source("train", deserialize_method=raw)

        self._open = open_clip

    def read(self, pair: int) -> bytes:
        """Read the serialized record of a pair."""
        clip, record = self._record[pair]
        return self._open(int(clip))[int(record)]

    def decode(self, tf: Any, record: Any) -> dict[str, Any]:
        """Build the graph that turns a record into `frames` and `flow`."""
        skip = {name: tfds.decode.SkipDecoding() for name in ("first", "second")}
        example = self._features.deserialize_example(record, decoders=skip)
        shape = self._features["first"].shape
        # decode_jpeg reads PNG too; the accurate transform is what Pillow uses.
        frames = [
            tf.ensure_shape(
                tf.io.decode_jpeg(example[name], 3, dct_method="INTEGER_ACCURATE"),
                shape,
            )
            for name in ("first", "second")
        ]
        return {"frames": tf.stack(frames), "flow": example["flow"]}


def write_shards(
    training_set: TrainingSet, folder: Path, process: tuple[int, int] = (0, 1)
) -> dict[str, int]:
    """Write the shards of every clip that has none yet, and remove stale ones.

    Args:
        training_set: What to write.
        folder: Gets one folder a clip.
        process: (index, count) of this process; clips are shared over processes.

    Returns:
        Number of clips `written` and `reused` by this process.

    Raises:
        UserError: If the disk cannot hold them; finished clips stay valid.
    """
    tfds.disable_progress_bar()
    mine = range(process[0], len(training_set.clips), process[1])
    known = {clip: _checksums(training_set, clip, folder) for clip in mine}
    where = dict(zip(mine, places(training_set, mine, folder, known), strict=True))
    todo = [clip for clip in mine if not is_written(training_set, clip, where[clip])]
    for clip in todo:  # what a killed run or other settings left
        shutil.rmtree(folder / training_set.clips[clip].name, ignore_errors=True)
    _check_room(training_set, todo, folder)
    for done, clip in enumerate(todo, start=1):
        try:
            _write_clip(training_set, clip, where[clip])
            _seal(where[clip], known[clip])
        except (OSError, RuntimeError) as error:
            left = sum(clip_bytes(training_set, c) for c in todo[done - 1 :])
            raise _explain(error, folder, left) from error
        logging.info(
            "prepare: clip %d/%d %s", done, len(todo), training_set.clips[clip].name
        )
    for clip in set(mine) - set(todo):
        _seal(where[clip], known[clip])
    return {"written": len(todo), "reused": len(mine) - len(todo)}


def open_shards(training_set: TrainingSet, folder: Path) -> Shards:
    """Open the shards of a training set.

    Raises:
        UserError: If a clip is not prepared, or was from other frames or settings.
    """
    problems = errors.ProblemList()
    every = range(len(training_set.clips))
    where = places(training_set, every, folder)
    for clip in every:
        if not is_written(training_set, clip, where[clip]):
            name, told = training_set.clips[clip].name, "no shards"
            if where[clip].is_dir():
                told = "its shards are damaged or not complete"
            elif (folder / name).is_dir():
                told = "frames, flow or settings changed since"
            problems.add(name, told)
    problems.raise_if_any(
        f"shards in {folder}",
        "shards of every clip, made from these frames and this flow",
        "run --config.stage=prepare",
    )
    return Shards(
        training_set, [place / "frame_pairs" / RECORD_VERSION for place in where]
    )


def are_written(training_set: TrainingSet, folder: Path) -> bool:
    """Tell whether the shards of all clips are there and whole."""
    every = range(len(training_set.clips))
    where = places(training_set, every, folder)
    return all(is_written(training_set, clip, where[clip]) for clip in every)


def places(
    training_set: TrainingSet,
    clips: Sequence[int],
    folder: Path,
    known: Mapping[int, sealed.Remembered] | None = None,
) -> list[Path]:
    """Return where the shards of some clips belong; reads frames it does not know."""

    def place(clip: int) -> Path:
        told = known[clip] if known else _checksums(training_set, clip, folder)
        digest = clip_digest(training_set, clip, told)
        return folder / training_set.clips[clip].name / digest

    with ThreadPoolExecutor() as pool:
        return list(pool.map(place, clips))


def is_written(training_set: TrainingSet, clip: int, place: Path) -> bool:
    """Tell whether a clip's shards are there and whole."""
    dataset = place / "frame_pairs" / RECORD_VERSION
    try:
        info = json.loads((dataset / "dataset_info.json").read_text())
        lengths = [int(n) for split in info["splits"] for n in split["shardLengths"]]
    except (OSError, ValueError, KeyError):
        return False
    found = _shards_of(place)
    if len(found) != len(lengths):
        return False
    if any(sealed.is_sealed(path) and not sealed.is_whole(path) for path in found):
        return False
    return sum(lengths) == len(training_set.indices_of_clip[clip])


def clip_digest(training_set: TrainingSet, clip: int, known: sealed.Remembered) -> str:
    """Return 12 hex digits of all that a clip's records depend on."""
    record = training_set.clips[clip]
    assert training_set.flow is not None  # shards hold flow
    told = {
        "version": RECORD_VERSION,
        "size": record.size,
        "frames": [
            record.fingerprint(t)
            if frame.path is None
            else f"{known.crc(frame.path):08x}"
            for t, frame in enumerate(record.frames)
        ],
        "flow": training_set.flow.digest,
        "background": training_set.background,
        "pairs": [
            (training_set.pairs[i].first, training_set.pairs[i].second)
            for i in training_set.indices_of_clip[clip]
        ],
    }
    return hashlib.sha256(json.dumps(told).encode()).hexdigest()[:12]


def _checksums(training_set: TrainingSet, clip: int, folder: Path) -> sealed.Remembered:
    return sealed.Remembered(folder / training_set.clips[clip].name / CHECKSUMS)


def _seal(place: Path, known: sealed.Remembered) -> None:
    """Note what a clip's shards and frames are, where it is not noted yet."""
    for path in _shards_of(place):
        if not sealed.is_sealed(path):
            sealed.seal(path)
    known.keep()


def _shards_of(place: Path) -> list[Path]:
    return sorted((place / "frame_pairs" / RECORD_VERSION).glob("*.array_record-*"))


def encode_frame(clip: clips_lib.Clip, index: int) -> bytes:
    """Return a frame as JPEG if its file is one that decodes to it, else as PNG."""
    path = clip.frames[index].path
    if path is not None and clip.size == clip.native_size:
        with Image.open(path) as image:
            upright = image.getexif().get(EXIF_ORIENTATION, 1) == 1
            if image.format == "JPEG" and image.mode in ("RGB", "L") and upright:
                return path.read_bytes()
    good, png = cv2.imencode(".png", clip.read(index)[..., ::-1])
    assert good
    return png.tobytes()


def _write_clip(training_set: TrainingSet, clip: int, place: Path) -> None:
    config = tfds.download.DownloadConfig(num_shards=1, try_download_gcs=False)
    # TFDS prints its progress; one line a clip is enough.
    with contextlib.redirect_stdout(io.StringIO()):
        builder = FramePairs(training_set, clip, place)
        builder.download_and_prepare(download_config=config)
    shutil.rmtree(place / "downloads", ignore_errors=True)  # empty


def clip_bytes(training_set: TrainingSet, clip: int) -> int:
    """Estimate a clip's shards: flow as stored, frames as their files, or as PNG."""
    record = training_set.clips[clip]
    h, w = record.size
    png = h * w * 2  # measured on DAVIS: 1.4 to 2 bytes a pixel
    sizes = [
        max(frame.path.stat().st_size, 0)
        if frame.path is not None and frame.path.suffix.lower() in (".jpg", ".jpeg")
        else png
        for frame in record.frames
    ]
    indices = training_set.indices_of_clip[clip]
    pairs = [training_set.pairs[i] for i in indices]
    flow = training_set.flow_of(indices[0]).nbytes
    return sum(sizes[p.first] + sizes[p.second] + flow for p in pairs)


def _check_room(training_set: TrainingSet, todo: list[int], folder: Path) -> None:
    """Refuse before the work what cannot end well."""
    folder.mkdir(parents=True, exist_ok=True)
    needed = sum(clip_bytes(training_set, clip) for clip in todo)
    free = shutil.disk_usage(folder).free
    if needed > free:
        raise errors.UserError(
            f"{free / 1e6:.0f} MB free at {folder}",
            f"{needed / 1e6:.0f} MB for the shards of {len(todo)} clip(s)",
            "make room, set --config.workdir to a larger disk, or set "
            "--config.data.source=memory, which needs no shards",
        )


def _explain(error: Exception, folder: Path, left: int) -> errors.UserError:
    """Turn a failed write into what to do; other errors come back out as they are."""
    # ArrayRecord's writer raises RuntimeError with the system's words.
    if not files.tells_full(error) and not isinstance(error, OSError):
        raise error
    return errors.UserError(
        f"writing shards to {folder} failed: {error}",
        f"a writable disk with {left / 1e6:.0f} MB free for the clips still to do",
        "make room or set --config.workdir to another disk, then run the same "
        "command: finished clips are kept",
    )
