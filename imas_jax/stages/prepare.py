"""The prepare stage: everything training reads is checked, and sharded if asked to.

Clips were checked when they were found; here their pixels are decoded and every flow
file is read, so that nothing is discovered missing in the middle of training. Processes
share the clips, and one of them tells what all have found. With
`data.source = "tfrecord"` the pairs are then written to shards, clip by clip; a killed
run goes on with the clip it was at. No annotation is read or written.
"""

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from absl import logging
from ml_collections import ConfigDict

from imas_jax import errors
from imas_jax.data import clips as clips_lib
from imas_jax.data import pipeline
from imas_jax.data import training_set as training_set_lib
from imas_jax.flow import files


def run(
    config: ConfigDict,
    clips: Sequence[clips_lib.Clip],
    flow: files.FlowFolder,
    folder: Path,
    process: tuple[int, int] = (0, 1),
    wait: Callable[[], None] = lambda: None,
    exchange: Callable[[str], list[str]] = lambda text: [text],
) -> dict[str, Any]:
    """Check the training set and write its shards if `data.source` wants them.

    Args:
        config: `data.source`, `flow.gaps` and `flow.background` matter.
        clips: What is trained on.
        flow: Where the flow stage wrote.
        folder: Of this stage; shards go to a subfolder.
        process: (index, count) of this process; clips are shared over processes.
        wait: Returns when all processes arrived.
        exchange: Returns what every process says, in all of them.

    Returns:
        Plain values for `result.json`: counts, size and source; the same whether the
        stage was interrupted or not.

    Raises:
        UserError: One report of everything wrong with frames or flow, by the first
            process while the others wait; or a full disk.
    """
    training_set = training_set_lib.find(config, clips, flow)
    _check(training_set, process, exchange, wait)
    summary = summarise(training_set, config.data.source)
    if config.data.source == "tfrecord":
        # Here and not above: without shards tensorflow_datasets is not needed.
        from imas_jax.data import builders

        shards = folder / pipeline.SHARDS
        counts = builders.write_shards(training_set, shards, process)
        wait()
        builders.open_shards(training_set, shards)  # says so if any is missing
        size = sum(path.stat().st_size for path in shards.rglob("*.array_record-*"))
        logging.info(
            "prepare: %.1f MB of shards in %s, %d clips written, %d kept",
            size / 1e6,
            shards,
            counts["written"],
            counts["reused"],
        )
    return summary


def is_intact(
    config: ConfigDict,
    clips: Sequence[clips_lib.Clip],
    flow: files.FlowFolder,
    folder: Path,
) -> bool:
    """Tell whether all shards that training reads are there; it reads none of them."""
    from imas_jax.data import builders  # as in `run`

    training_set = training_set_lib.find(config, clips, flow)
    return builders.are_written(training_set, folder / pipeline.SHARDS)


def summarise(
    training_set: training_set_lib.TrainingSet, source: str
) -> dict[str, Any]:
    """Count what there is to train on, clip by clip."""
    frames: Sequence[int] = [len(clip.frames) for clip in training_set.clips]
    return {
        "source": source,
        "clips": len(training_set.clips),
        "frames": sum(frames),
        "pairs": len(training_set.pairs),
        "size": list(training_set.size),
        "frames_of_clip": {
            clip.name: count
            for clip, count in zip(training_set.clips, frames, strict=True)
        },
        "memory_bytes": training_set_lib.memory_needed(training_set),
    }


def _check(
    training_set: training_set_lib.TrainingSet,
    process: tuple[int, int],
    exchange: Callable[[str], list[str]],
    wait: Callable[[], None],
) -> None:
    """Decode and read this process's share; tell what all have found, once."""
    mine = range(process[0], len(training_set.clips), process[1])
    frames = clips_lib.pixel_problems([training_set.clips[clip] for clip in mine])
    indices = [i for clip in mine for i in training_set.indices_of_clip[clip]]
    look = training_set_lib.look_at_flows(training_set, indices)
    said = [frames, look.problems, list(look.grids.items())]
    shares = [json.loads(text) for text in exchange(json.dumps(said))]
    looks = [
        training_set_lib.Look(problems, {index: tuple(grid) for index, grid in grids})
        for _, problems, grids in shares
    ]
    found: list[errors.UserError] = []
    for refuse in (
        lambda: clips_lib.refuse_pixels(
            sorted(p for share in shares for p in share[0])
        ),
        lambda: training_set_lib.refuse_flows(training_set, looks),
    ):
        try:
            refuse()
        except errors.UserError as error:
            found.append(error)
    if not found:
        return
    if process[0] > 0:
        wait()  # the first ends with a message, and the others with it
    raise errors.UserError(
        "\n".join(error.found for error in found),
        "; ".join(error.expected for error in found),
        "; ".join(error.fix for error in found),
    )
