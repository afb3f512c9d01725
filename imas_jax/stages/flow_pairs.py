"""How the flow stage works through frame pairs: batches, threads, one write a field.

Frames are read once, in order, by one thread; workers estimate and write. A worker
holds one batch (one pair on a CPU), whatever the length of a clip.
"""

import concurrent.futures
import dataclasses
import itertools
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence

import numpy as np

from imas_jax.data import clips as clips_lib
from imas_jax.data import imported_flow
from imas_jax.flow import estimators, files, motion


@dataclasses.dataclass(frozen=True)
class Job:
    """One pair to compute."""

    clip: clips_lib.Clip
    pair: clips_lib.Pair
    importer: imported_flow.Importer | None = None

    @property
    def gap(self) -> int:
        """Return the frames between the two."""
        return self.pair.second - self.pair.first

    def fingerprint(self) -> str:
        """Return what identifies the contents of both frames, and of imported files."""
        first = self.clip.fingerprint(self.pair.first)
        second = self.clip.fingerprint(self.pair.second)
        imported = (
            self.importer.fingerprint(self.clip, self.pair) if self.importer else ""
        )
        return f"{first}-{second}{imported}"


Task = tuple[Job, np.ndarray, np.ndarray]  # with frames t and t + gap
Compute = Callable[[Sequence[Task]], list[estimators.FlowPair]]


def compute_and_write(
    jobs: Sequence[Job],
    compute: Compute,
    batch_size: int,
    workers: int,
    write: Callable[[Job, estimators.FlowPair], None],
) -> Iterator[None]:
    """Yield once for every pair that is computed and written.

    Args:
        jobs: Pairs, neighbours in time next to each other.
        compute: From `estimated` or `imported`.
        batch_size: Pairs a call of `compute` gets at most.
        workers: Calls at the same time.
        write: Stores the flow of a pair, in pixels of `clip.size`.
    """

    def work(tasks: Sequence[Task]) -> int:
        for (job, _, _), fields in zip(tasks, compute(tasks), strict=True):
            write(job, fields)
        return len(tasks)

    batches = _batches(_with_frames(jobs), batch_size)
    for count in _map_bounded(work, batches, workers):
        yield from itertools.repeat(None, count)


def estimated(estimator: estimators.Estimator) -> Compute:
    """Compute with an estimator."""

    def compute(tasks: Sequence[Task]) -> list[estimators.FlowPair]:
        _, first, second = zip(*tasks, strict=True)
        forward, backward = estimator.batch(np.stack(first), np.stack(second))
        return list(zip(forward, backward, strict=True))

    return compute


def imported(importer: imported_flow.Importer) -> Compute:
    """Read what another program computed."""

    def compute(tasks: Sequence[Task]) -> list[estimators.FlowPair]:
        return [importer.read(job.clip, job.pair) for job, _, _ in tasks]

    return compute


def write_pair(
    estimator: str, target: files.FlowFolder, job: Job, fields: estimators.FlowPair
) -> None:
    """Store a pair's flow at half resolution with camera motion and quality signals."""
    halves = [files.half_resolution(f) for f in fields]
    fits = [motion.fit_background(f, job.clip.size) for f in halves]
    both = zip(files.DIRECTIONS, halves, halves[::-1], fits, strict=True)
    for direction, field, other, homography in both:
        meta = files.FlowMeta(
            job.clip.name,
            job.pair.first,
            direction,
            job.gap,
            job.clip.size,
            estimator,
            target.digest,
            job.fingerprint(),
        )
        quality = motion.quality(field, other, homography, job.clip.size)
        path = target.path(job.clip.name, job.pair.first, direction, job.gap)
        files.write_flow(path, field, meta, homography, quality)


def _with_frames(jobs: Sequence[Job]) -> Iterator[Task]:
    """Read frames in order, each once in a run of pairs: videos cannot seek."""
    held: dict[int, np.ndarray] = {}
    last: Job | None = None
    for job in jobs:
        wanted = (job.pair.first, job.pair.second)
        if last is None or last.clip is not job.clip or wanted[0] not in held:
            held = {}
        held = {t: frame for t, frame in held.items() if t >= wanted[0]}
        # Frames between the two are read on the way, for the pairs that follow.
        for t in range(max(held, default=wanted[0] - 1) + 1, wanted[1] + 1):
            held[t] = job.clip.read(t)
        yield job, held[wanted[0]], held[wanted[1]]
        last = job


def _batches(tasks: Iterable[Task], size: int) -> Iterator[list[Task]]:
    """Group neighbours of one frame size."""
    for _, group in itertools.groupby(tasks, lambda task: task[0].clip.size):
        while batch := list(itertools.islice(group, size)):
            yield batch


def _map_bounded(
    work: Callable[[Sequence[Task]], int],
    batches: Iterable[Sequence[Task]],
    workers: int,
) -> Iterator[int]:
    """Map over threads (OpenCV and XLA let go of the GIL), few in flight, in order."""
    with concurrent.futures.ThreadPoolExecutor(workers) as pool:
        running: deque[concurrent.futures.Future[int]] = deque()
        try:
            for batch in batches:
                running.append(pool.submit(work, batch))
                if len(running) > workers:
                    yield running.popleft().result()
            while running:
                yield running.popleft().result()
        finally:
            for future in running:
                future.cancel()
