"""The flow stage: clips -> flow files, each pair once, whatever interrupts it.

What exists and is sound is kept; a killed run loses the pairs in work (one a worker).
Work is shared over processes in contiguous runs of pairs (each decodes its own part of
a video), and within a process over CPU cores or accelerators (`flow_pairs.py`).
"""

import concurrent.futures
import functools
import itertools
import json
import os
import shutil
import statistics
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from absl import logging
from ml_collections import ConfigDict

from imas_jax import errors
from imas_jax.data import clips as clips_lib
from imas_jax.data import imported_flow
from imas_jax.flow import estimators, files
from imas_jax.stages import flow_export, flow_pairs, shares

WARNINGS = {
    "no_motion": "almost nothing moves: there is nothing to learn from in these pairs",
    "camera_only": "the camera explains the motion: no object may be found",
    "inconsistent": "forward and backward flow disagree: blur, scene cuts, fast motion",
}


def flow_folder(config: ConfigDict, folder: Path) -> files.FlowFolder:
    """Return where this config's flow lies; it need not exist yet.

    Raises:
        UserError: If the estimator or its weights are unknown.
    """
    parts: list[Any] = [estimators.digest(config.flow), config.data.size]
    if config.data.frames > 0:  # thinned clips number their frames anew
        parts += [config.data.frames, max(config.flow.gaps)]
    return files.FlowFolder(
        Path(config.flow.root or folder),
        f"{config.flow.estimator}-{files.settings_digest(*parts)}",
    )


def run(
    config: ConfigDict,
    clips: Sequence[clips_lib.Clip],
    folder: Path,
    share: shares.Share = shares.ALONE,
) -> dict[str, Any]:
    """Compute every flow file that is missing, damaged or stale, and look at them.

    Args:
        config: The whole config; `flow` and `data.size` matter.
        clips: From `clips.find_clips`.
        folder: Where flow lies unless `flow.root` says otherwise.
        share: This process's part.

    Returns:
        Plain values for `result.json`: folder, counts, bytes, quality of each clip.

    Raises:
        UserError: If a frame or the disk fails; what is written stays valid.
    """
    computed = complete(config, clips, folder, share)
    target = flow_folder(config, folder)
    summary = summarise(target, clips, config.flow.gaps)
    summary["computed"] = computed
    if config.flow.export and share.index == 0:
        summary["export"] = str(flow_export.export(config.flow, target, clips))
        summary["exported"] = config.flow.export
    return summary


def complete(
    config: ConfigDict,
    clips: Sequence[clips_lib.Clip],
    folder: Path,
    share: shares.Share = shares.ALONE,
) -> int:
    """Compute what `run` does; return how many pairs that were, of all processes."""
    target = flow_folder(config, folder)
    importer = None
    if config.flow.estimator == "import":
        importer = imported_flow.open_folder(Path(config.flow.source))
        imported_flow.check(importer, clips, config.flow.gaps)
    jobs = all_jobs(clips, config.flow.gaps, importer)
    index, count = share.index, share.count
    mine = jobs[len(jobs) * index // count : len(jobs) * (index + 1) // count]
    todo = _missing(target, mine)
    done: Iterator[None] = iter(())
    if todo:
        clips_lib.check_pixels(list({job.clip.name: job.clip for job in todo}.values()))
        logging.info(
            "flow: %d of %d pairs to compute with %s",
            len(todo),
            len(mine),
            config.flow.estimator,
        )
        done = _compute(config, target, todo, importer)
    for _ in share.progress(done, len(todo), "flow", "pair"):
        pass
    return sum(share.gather(len(todo)))  # so all have arrived


def is_intact(
    target: files.FlowFolder, clips: Sequence[clips_lib.Clip], gaps: Sequence[int]
) -> bool:
    """Tell whether every flow file is there and no shorter than its clip's others.

    Sizes only, so that a finished stage is passed in no time; contents are checked by
    the prepare stage.
    """
    sizes: dict[str, list[int]] = {clip.name: [] for clip in clips}
    for job in all_jobs(clips, gaps):
        for direction in files.DIRECTIONS:
            path = target.path(job.clip.name, job.pair.first, direction, job.gap)
            if not path.is_file():
                logging.warning("flow file %s is missing: flow is made again", path)
                return False
            sizes[job.clip.name].append(path.stat().st_size)
    # The pixels of a clip take the same room; only its metadata vary, by a few digits.
    torn = [name for name, found in sizes.items() if max(found) - min(found) > 4096]
    if torn:
        logging.warning("flow files of %s are cut short: made again", ", ".join(torn))
    return not torn


def all_jobs(
    clips: Sequence[clips_lib.Clip],
    gaps: Sequence[int],
    importer: imported_flow.Importer | None = None,
) -> list[flow_pairs.Job]:
    """List every pair of every gap.

    Raises:
        UserError: If a clip is too short for a gap.
    """
    short = errors.ProblemList()
    for clip, gap in itertools.product(clips, gaps):
        if not clips_lib.pairs((clip,), gap):
            shots = f" in {len(clip.cuts) + 1} shots" if clip.cuts else ""
            short.add(
                clip.name,
                f"{len(clip.frames)} frames{shots}, gap {gap} needs {gap + 1}",
            )
    short.raise_if_any("clips", "more frames than flow.gaps", "drop them or the gap")
    return [
        flow_pairs.Job(clips[pair.clip], pair, importer)
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
        for pair in clips_lib.pairs((clip,), gaps[0]):
            path = target.path(clip.name, pair.first, "forward", gaps[0])
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
        "digest": target.digest,
        "pairs": len(all_jobs(clips, gaps)),
        "bytes": size,
        "quality": quality,
    }


def median_quality(rows: Sequence[Any]) -> dict[str, float]:
    """Return the median of each signal over a clip's pairs."""
    names = rows[0] if rows else ()
    return {name: statistics.median(row[name] for row in rows) for name in names}


def _missing(
    target: files.FlowFolder, jobs: Sequence[flow_pairs.Job]
) -> list[flow_pairs.Job]:
    """Keep the jobs whose files are not both there, sound and of the same frames."""
    with concurrent.futures.ThreadPoolExecutor(os.cpu_count()) as pool:
        good = pool.map(lambda job: _is_done(target, job), jobs)
        return [job for job, done in zip(jobs, good, strict=True) if not done]


def _is_done(target: files.FlowFolder, job: flow_pairs.Job) -> bool:
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


def _compute(
    config: ConfigDict,
    target: files.FlowFolder,
    jobs: list[flow_pairs.Job],
    importer: imported_flow.Importer | None,
) -> Iterator[None]:
    """Yield once for every pair that is written."""
    if importer is not None:
        compute, size = flow_pairs.imported(importer), 1
        workers = os.cpu_count() or 1
    else:
        estimator = estimators.make_estimator(config.flow)
        compute, size = flow_pairs.estimated(estimator), estimator.batch_size
        workers = estimator.workers
    write = functools.partial(flow_pairs.write_pair, config.flow.estimator, target)
    try:
        _check_disk(target, jobs)
        yield from flow_pairs.compute_and_write(jobs, compute, size, workers, write)
    except OSError as error:
        raise errors.UserError(
            f"writing flow to {target.root} failed: {error}",
            f"a folder to write to, with {_bytes(jobs) // 10**6 + 1} MB free",
            "make room or set --config.flow.root, then run the same command: "
            "what is written is kept",
        ) from error


def _bytes(jobs: Sequence[flow_pairs.Job]) -> int:
    """Return what the files of these jobs will take: half resolution, two halves."""
    return sum(2 * (j.clip.size[0] * j.clip.size[1] + 2048) for j in jobs)


def _check_disk(target: files.FlowFolder, jobs: Sequence[flow_pairs.Job]) -> None:
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
