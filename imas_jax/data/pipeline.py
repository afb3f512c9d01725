"""Batches of frame pairs for the train step: a pure function of (seed, step).

Two sources, one order (`order.py`). `MemorySource` takes decoded frames and flow from
memory, which the processes of a host share (`decoded.py`), and needs no TensorFlow.
`TFRecordSource` lets tf.data read and decode the shards of `builders.py` in the
background, for sets larger than memory. Neither has a state to save: a resumed run asks
for step k and gets the batch of step k.

Pixels of the two sources are equal where both decode JPEG alike, which libjpeg-turbo
does (tested); they may differ by one grey level with another decoder.

Stage-2 targets are small and made after the shards: both sources hold them in memory.
TensorFlow is imported when a `TFRecordSource` starts, and never sees the accelerator.
"""

import itertools
import os
import queue
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, TypeVar

import jax
import numpy as np
from jaxtyping import Float16, UInt8
from ml_collections import ConfigDict

from imas_jax import errors
from imas_jax.conventions import Batch, Features
from imas_jax.data import clips as clips_lib
from imas_jax.data import decoded, memory
from imas_jax.data import order as order_lib
from imas_jax.data import training_set as training_set_lib

T = TypeVar("T")
SHARDS = "shards"  # subfolder of the prepare stage's folder
PREFETCH = 2  # batches ready ahead of the train step

# One array a clip, or a pair; clips differ in length.
Frames = Sequence[UInt8[np.ndarray, "_ h w 3"]] | Sequence[Sequence[Features]]
Flows = Sequence[Float16[np.ndarray, "2 hf wf 2"]]
Targets = Sequence[UInt8[np.ndarray, "_ _ _"]]


class MemorySource:
    """Batches from decoded arrays; `np.memmap`s will do as well.

    Args:
        frames: One array a clip, or what a frozen backbone sees in its frames.
        flows: Forward and backward flow of every pair, pixels of the frames.
        pairs: Clip number and frame indices of every pair.
        order: Of the pairs.
        targets: Stage-2 targets, one array a clip, or None.
    """

    def __init__(
        self,
        frames: Frames,
        flows: Flows,
        pairs: Sequence[clips_lib.Pair],
        order: order_lib.Order,
        targets: Targets | None = None,
    ):
        self.frames, self.flows, self.pairs = frames, flows, pairs
        self.order, self.targets = order, targets

    @property
    def num_pairs(self) -> int:
        """Return the pairs of an epoch."""
        return len(self.pairs)

    def batch(self, step: int) -> Batch:
        """Return this process's part of the batch of one step."""
        chosen = self.order.local(step)
        pairs = [self.pairs[i] for i in chosen]
        places = [(pair.clip, t) for pair in pairs for t in (pair.first, pair.second)]
        both = [self.frames[clip][t] for clip, t in places]
        return Batch(
            frames=jax.tree.map(_in_pairs, *both),
            flow_forward=np.stack([self.flows[i][0] for i in chosen]),
            flow_backward=np.stack([self.flows[i][1] for i in chosen]),
            target=_targets_of(self.targets, pairs),
            pair=chosen,
        )

    def batches(self, first: int) -> Iterator[Batch]:
        """Yield the batches from step `first` on, prepared by a thread."""
        return prefetch(map(self.batch, itertools.count(first)), PREFETCH)


class TFRecordSource:
    """Batches from shards, read and decoded by tf.data.

    Args:
        shards: From `builders.open_shards`.
        pairs: As the shards were made from.
        order: Of the pairs.
        targets: Stage-2 targets, one array a clip, or None.
    """

    def __init__(
        self,
        shards: Any,
        pairs: Sequence[clips_lib.Pair],
        order: order_lib.Order,
        targets: Targets | None = None,
    ):
        self._shards, self._pairs = shards, pairs
        self._order, self._targets = order, targets

    @property
    def num_pairs(self) -> int:
        """Return the pairs of an epoch."""
        return len(self._pairs)

    def batch(self, step: int) -> Batch:
        """Return this process's part of the batch of one step."""
        return next(self.batches(step))

    def batches(self, first: int) -> Iterator[Batch]:
        """Yield the batches from step `first` on, prepared by tf.data."""
        for record in self._dataset(first).as_numpy_iterator():
            pairs = [self._pairs[i] for i in record["pair"]]
            yield Batch(
                frames=record["frames"],
                flow_forward=record["flow"][:, 0],
                flow_backward=record["flow"][:, 1],
                target=_targets_of(self._targets, pairs),
                pair=record["pair"],
            )

    def _dataset(self, first: int) -> Any:
        tf = tensorflow()
        order, shards = self._order, self._shards

        @tf.autograph.experimental.do_not_convert
        def choose(step: Any) -> Any:
            chosen = tf.numpy_function(lambda s: order.local(int(s)), [step], tf.int64)
            return tf.ensure_shape(chosen, [order.batch_size // order.process_count])

        @tf.autograph.experimental.do_not_convert
        def read(pair: Any) -> dict[str, Any]:
            record = tf.numpy_function(lambda p: shards.read(int(p)), [pair], tf.string)
            return shards.decode(tf, record) | {"pair": pair}

        steps = tf.data.Dataset.range(first, np.iinfo(np.int64).max)
        options = tf.data.Options()
        options.deterministic = True
        options.threading.private_threadpool_size = os.cpu_count() or 1
        return (
            steps.map(choose)
            .unbatch()
            .map(read, num_parallel_calls=os.cpu_count() or 1)
            .batch(order.batch_size // order.process_count, drop_remainder=True)
            .prefetch(PREFETCH)
            .with_options(options)
        )


def make_source(
    config: ConfigDict,
    training_set: training_set_lib.TrainingSet,
    stage: order_lib.Stage,
    prepared: Path,
    targets: Targets | None = None,
    process: tuple[int, int] = (0, 1),
    here: int = 1,
    seen: Sequence[Sequence[Features]] | None = None,
) -> MemorySource | TFRecordSource:
    """Build the source that `config.data.source` names.

    For "device" it is what the devices are sent (`training/held.py`).

    Args:
        config: The whole config: `seed`, `data.source` and the stage's `batch_size`.
        training_set: What to train on.
        stage: Whose batch size and order.
        prepared: The prepare stage's folder; only tfrecord looks there.
        targets: Stage-2 targets, one array a clip, in the clips' order.
        process: (index, count) of this process.
        here: How many of the processes are on this host.
        seen: What a frozen backbone sees in the clips' frames, to give in their place;
            for memory only.

    Raises:
        UserError: If flow, frames, shards or targets are missing or do not fit.
    """
    pairs = training_set.pairs
    order = order_lib.Order(
        len(pairs), config[stage].batch_size, config.seed, stage, process[0], process[1]
    )
    _check_targets(training_set, targets)
    if config.data.source in ("memory", "device"):
        needed = training_set_lib.memory_needed(training_set, frames=seen is None)
        kept = decoded.folder(config.data.cache, needed, here)
        own = _in_flight(training_set, order) + sum(t.nbytes for t in targets or ())
        shared, own = (0, own + needed) if kept is None else (needed, own)
        memory.check(shared, own, here)
        frames = decoded.read_frames(training_set, kept) if seen is None else seen
        flows = decoded.read_flows(training_set, kept)
        return MemorySource(frames, flows, pairs, order, targets)
    if config.data.source == "tfrecord":
        tensorflow()  # before tensorflow_datasets finds it, to keep it quiet
        # Here and not above: memory sources do without tensorflow_datasets.
        from imas_jax.data import builders

        return TFRecordSource(
            builders.open_shards(training_set, prepared / SHARDS), pairs, order, targets
        )
    raise errors.UserError(
        f"data.source={config.data.source!r}",
        "memory, device or tfrecord",
        "set one, e.g. --config.data.source=memory",
    )


def prefetch(items: Iterator[T], depth: int) -> Iterator[T]:
    """Draw items in a thread, up to `depth` ahead; errors come out where they belong.

    The thread ends when the items do, or soon after the returned iterator is closed or
    forgotten.
    """
    ready: queue.Queue[tuple[bool, Any]] = queue.Queue(depth)
    stop = threading.Event()

    def put(entry: tuple[bool, Any]) -> None:
        while not stop.is_set():
            try:
                return ready.put(entry, timeout=0.1)
            except queue.Full:
                continue

    def draw() -> None:
        try:
            for item in items:
                put((True, item))
                if stop.is_set():
                    return
            put((False, None))
        except BaseException as error:  # handed to the consumer
            put((False, error))

    def consume() -> Iterator[T]:
        thread = threading.Thread(target=draw, name="prefetch", daemon=True)
        thread.start()
        try:
            while True:
                more, value = ready.get()
                if more:
                    yield value
                elif value is None:
                    return
                else:
                    raise value
        finally:
            stop.set()

    return consume()


def tensorflow() -> Any:
    """Import TensorFlow, quiet and without the accelerator.

    Raises:
        UserError: If it is not installed.
    """
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "0")  # no maths here, less noise
    try:
        import tensorflow as tf
    except ImportError as error:
        raise errors.UserError(
            f"data.source=tfrecord, but TensorFlow does not import ({error})",
            "the optional extra",
            "pip install 'imas_jax[tfrecord]', or set --config.data.source=memory",
        ) from error
    tf.config.set_visible_devices([], "GPU")
    return tf


def _in_pairs(*each: np.ndarray) -> np.ndarray:
    return np.stack(each).reshape(-1, 2, *each[0].shape)


def _targets_of(
    targets: Targets | None, pairs: Sequence[clips_lib.Pair]
) -> UInt8[np.ndarray, "b 2 ht wt"] | None:
    if targets is None:
        return None
    return np.stack(
        [np.stack([targets[p.clip][p.first], targets[p.clip][p.second]]) for p in pairs]
    )


def _check_targets(
    training_set: training_set_lib.TrainingSet, targets: Targets | None
) -> None:
    if targets is None:
        return
    problems = errors.ProblemList()
    for clip, target in zip(training_set.clips, targets, strict=True):
        if len(target) != len(clip.frames) or target.shape[1:] != targets[0].shape[1:]:
            problems.add(
                clip.name,
                f"targets are {target.shape} (t, h, w), the clip has "
                f"{len(clip.frames)} frames, other targets are {targets[0].shape[1:]}",
            )
    problems.raise_if_any(
        "stage-2 targets",
        "one target a frame, all of one size",
        "run --config.stage=align again",
    )


def _in_flight(
    training_set: training_set_lib.TrainingSet, order: order_lib.Order
) -> int:
    """Return the bytes of a process's batches: those ready, in hand and being made."""
    h, w = training_set.size
    flow = sum(map(training_set_lib.flow_bytes, training_set.paths(0)))
    pairs = order.batch_size // order.process_count
    return (PREFETCH + 2) * pairs * (2 * 3 * h * w + flow)
