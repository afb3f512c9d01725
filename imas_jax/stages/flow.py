"""The flow stage: clips -> flow files, each pair once, whatever interrupts it.

What exists and is sound is kept; a killed run loses the pairs in work (one a worker).
Work is shared over processes in contiguous runs of pairs (each decodes its own part of
a video) and over CPU cores within a process. A worker holds one pair.
"""

import concurrent.futures
import dataclasses
import itertools
import json
import os
import shutil
import statistics
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from absl import logging
from ml_collections import ConfigDict

from imas_jax import errors, progress
from imas_jax.data import clips as clips_lib
from imas_jax.flow import estimators, files, motion

WARNINGS = {
    "no_motion": "almost nothing moves: there is nothing to learn from in these pairs",
    "camera_only": "the camera explains the motion: no object may be found",
    "inconsistent": "forward and backward flow disagree: blur, scene cuts, fast motion",
}


@dataclasses.dataclass(frozen=True)
class Job:
    """One pair to compute."""

    clip: clips_lib.Clip
    pair: clips_lib.Pair

    @property
    def gap(self) -> int:
        """Return the frames between the two."""
        return self.pair.second - self.pair.first

    def fingerprint(self) -> str:
        """Return what identifies the contents of both frames."""
        first = self.clip.fingerprint(self.pair.first)
        return f"{first}-{self.clip.fingerprint(self.pair.second)}"


Task = tuple[Job, np.ndarray, np.ndarray]


def flow_folder(config: ConfigDict, folder: Path) -> files.FlowFolder:
    """Return where this config's flow lies; it need not exist yet.

    Raises:
        UserError: If the estimator or its weights are unknown.
    """
    digest = estimators.digest(config.flow)
    return files.FlowFolder(
        Path(config.flow.root or folder),
        f"{config.flow.estimator}-{files.settings_digest(digest, config.data.size)}",
    )


def run(
    config: ConfigDict,
    clips: Sequence[clips_lib.Clip],
    folder: Path,
    process: tuple[int, int] = (0, 1),
    wait: Callable[[], None] = lambda: None,
) -> dict[str, Any]:
    """Compute every flow file that is missing, damaged or stale.

    Args:
        config: The whole config; `flow` and `data.size` matter.
        clips: From `clips.find_clips`.
        folder: Where flow lies unless `flow.root` says otherwise.
        process: (index, count) of this process.
        wait: Returns when all processes arrived; called before the summary is read.

    Returns:
        Plain values for `result.json`: folder, counts, bytes, quality of each clip.

    Raises:
        UserError: If a frame or the disk fails; what is written stays valid.
    """
    target = flow_folder(config, folder)
    jobs = all_jobs(clips, config.flow.gaps)
    index, count = process
    share = jobs[len(jobs) * index // count : len(jobs) * (index + 1) // count]
    todo = _missing(target, share)
    if todo:
        logging.info(
            "flow: %d of %d pairs to compute with %s",
            len(todo),
            len(share),
            config.flow.estimator,
        )
        _compute(config, target, todo)
    wait()
    summary = summarise(target, clips, config.flow.gaps)
    summary["computed"] = len(todo)
    return summary


def all_jobs(clips: Sequence[clips_lib.Clip], gaps: Sequence[int]) -> list[Job]:
    """List every pair of every gap.

    Raises:
        UserError: If a clip is too short for a gap.
    """
    short = errors.ProblemList()
    for clip, gap in itertools.product(clips, gaps):
        if len(clip.frames) <= gap:
            short.add(
                clip.name, f"{len(clip.frames)} frames, gap {gap} needs {gap + 1}"
            )
    short.raise_if_any("clips", "more frames than flow.gaps", "drop them or the gap")
    return [
        Job(clips[pair.clip], pair)
        for gap in gaps
        for pair in clips_lib.pairs(clips, gap)
    ]


def summarise(
    target: files.FlowFolder, clips: Sequence[clips_lib.Clip], gaps: Sequence[int]
) -> dict[str, Any]:
    """Read what the files say of each clip, and warn of clips of little use."""
    quality, size = {}, 0
    for clip in clips:
        rows = []
        for t in range(len(clip.frames) - 1):
            path = target.path(clip.name, t, "forward", gaps[0])
            if path.exists():
                rows.append(files.read_flow(path).quality)
                size += 2 * len(gaps) * path.stat().st_size
        quality[clip.name] = median_quality(rows)
        for name, value in quality[clip.name].items():
            if name in WARNINGS and value >= 0.5:
                share = f"{100 * np.mean([r[name] for r in rows]):.0f} %"
                logging.warning(
                    "%s: %s (%s of pairs)", clip.name, WARNINGS[name], share
                )
    return {
        "folder": str(target.root / target.digest),
        "pairs": len(all_jobs(clips, gaps)),
        "bytes": size,
        "quality": quality,
    }


def median_quality(rows: Sequence[Any]) -> dict[str, float]:
    """Return the median of each signal over a clip's pairs."""
    names = rows[0] if rows else ()
    return {name: statistics.median(row[name] for row in rows) for name in names}


def _missing(target: files.FlowFolder, jobs: Sequence[Job]) -> list[Job]:
    """Keep the jobs whose files are not both there, sound and of the same frames."""
    with concurrent.futures.ThreadPoolExecutor(os.cpu_count()) as pool:
        good = pool.map(lambda job: _is_done(target, job), jobs)
        return [job for job, done in zip(jobs, good, strict=True) if not done]


def _is_done(target: files.FlowFolder, job: Job) -> bool:
    for direction in files.DIRECTIONS:
        path = target.path(job.clip.name, job.pair.first, direction, job.gap)
        if not path.exists():
            return False
        try:
            meta = files.read_flow(path).meta
        except errors.UserError as error:
            logging.warning("recomputing: %s", error.found)
            return False
        if (meta.frame_size, meta.frames) != (job.clip.size, job.fingerprint()):
            logging.warning("recomputing %s: its frames have changed", path)
            return False
    return True


def _compute(config: ConfigDict, target: files.FlowFolder, jobs: list[Job]) -> None:
    estimator = estimators.make_estimator(config.flow)
    try:
        _check_disk(target, jobs)
        done = _map_bounded(
            lambda task: _one_pair(config, estimator, target, *task), _with_frames(jobs)
        )
        for _ in progress.progress(done, len(jobs), "flow", "pair"):
            pass
    except OSError as error:
        raise errors.UserError(
            f"writing flow to {target.root} failed: {error}",
            f"a writable disk with {_bytes(jobs) / 1e6:.0f} MB free",
            "make room or set --config.flow.root, then run the same command: "
            "what is written is kept",
        ) from error


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


def _map_bounded(work: Callable[[Task], None], tasks: Iterable[Task]) -> Iterator[None]:
    """Map over threads (OpenCV lets go of the GIL), few in flight, in order."""
    workers = os.cpu_count() or 1
    with concurrent.futures.ThreadPoolExecutor(workers) as pool:
        running: deque[concurrent.futures.Future[None]] = deque()
        try:
            for task in tasks:
                running.append(pool.submit(work, task))
                if len(running) > workers:
                    yield running.popleft().result()
            while running:
                yield running.popleft().result()
        finally:
            for future in running:
                future.cancel()


def _one_pair(
    config: ConfigDict,
    estimator: estimators.Estimator,
    target: files.FlowFolder,
    job: Job,
    first: np.ndarray,
    second: np.ndarray,
) -> None:
    fields = [files.half_resolution(f) for f in estimator(first, second)]
    fits = [motion.fit_background(f, job.clip.size) for f in fields]
    both = zip(files.DIRECTIONS, fields, fields[::-1], fits, strict=True)
    for direction, field, other, homography in both:
        meta = files.FlowMeta(
            job.clip.name,
            job.pair.first,
            direction,
            job.gap,
            job.clip.size,
            config.flow.estimator,
            target.digest,
            job.fingerprint(),
        )
        quality = motion.quality(field, other, homography, job.clip.size)
        path = target.path(job.clip.name, job.pair.first, direction, job.gap)
        files.write_flow(path, field, meta, homography, quality)


def _bytes(jobs: Sequence[Job]) -> int:
    """Return what the files of these jobs will take: half resolution, two halves."""
    return sum(2 * (j.clip.size[0] * j.clip.size[1] + 2048) for j in jobs)


def _check_disk(target: files.FlowFolder, jobs: Sequence[Job]) -> None:
    """Refuse before hours of work what cannot end well."""
    target.root.mkdir(parents=True, exist_ok=True)
    needed, free = _bytes(jobs), shutil.disk_usage(target.root).free
    if needed > free:
        raise errors.UserError(
            f"{free / 1e6:.0f} MB free at {target.root}",
            f"{needed / 1e6:.0f} MB for the flow of {len(jobs)} pairs",
            "make room, or set --config.flow.root to a larger disk",
        )
    about = target.root / target.digest
    about.mkdir(exist_ok=True)
    text = json.dumps({"digest": target.digest, "format": files.VERSION})
    (about / "about.json").write_text(text)
