"""Masks of every frame: soft ones for later stages, one PNG a frame for people.

Passes over a clip's frames, each in order and one frame at a time: the network's, the
one that writes PNG masks, and one for further formats. Memory does not grow with a
clip's length. Processes share the clips, the devices of one its frames (`shares.py`).
"""

import dataclasses
import itertools
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from absl import logging
from jaxtyping import Float

from imas_jax.data.clips import Clip
from imas_jax.report import drawing
from imas_jax.runs.run import Output, Run
from imas_jax.stages import (
    align,
    inputs,
    mask_export,
    motion,
    object_masks,
    shares,
    soft_masks,
)
from imas_jax.stages.mask_export import MASKS, SOFT


def work(run: Run) -> Output:
    """Predict all clips with the final network and write their masks."""
    clips, start = inputs.clips(run), time.monotonic()
    share, folder = shares.every(), run.workdir / "predict"
    mine = share.of(clips)
    refined = run.config.refine.steps > 0
    masks_of = align.predicted(run, "refine" if refined else "discover")
    soft_masks.write_all(folder / SOFT, mine, masks_of, share=share)
    channels = tuple(run.values("align")["channels"])
    written = (
        step for clip in mine for step in _write_pngs(run, folder, clip, channels)
    )
    count = sum(len(clip.frames) for clip in mine)
    for _ in share.progress(written, count, "masks to PNG", "frame"):
        pass
    wanted = run.config.predict.formats
    formats = mask_export.export_all(run, folder, mine, wanted, share)
    share.wait()
    total = sum(len(clip.frames) for clip in clips)
    logging.info("predict: %.3g frames/s", total / (time.monotonic() - start))
    trained = run.result("refine" if refined else "align")["identity"]
    return Output(
        identity=f"{trained[:16]}-{'+'.join(map(str, channels))}",
        values={
            "masks": str(folder / MASKS),
            "formats": formats,
            "clips": {clip.name: len(clip.frames) for clip in clips},
            "channels": list(channels),
        },
    )


def evidence_of(
    run: Run, clip: Clip, first: int = 0
) -> Iterator[Float[np.ndarray, "h w"]] | None:
    """Return the motion evidence from a frame on; None where it has no say."""
    if run.config.predict.evidence == 0 or run.brought_in("align"):
        return None
    trained = inputs.trained(run.config, clip)
    if len(trained.frames) < len(clip.frames):
        return None
    return itertools.islice(motion.of_clip(run, trained), first, None)


def _write_pngs(
    run: Run, folder: Path, clip: Clip, channels: tuple[int, ...]
) -> Iterator[None]:
    """Write a clip's pictures; a killed run goes on with the first that is missing."""
    soft, config = soft_masks.read(folder / SOFT, clip), run.config.predict
    names = [f"{clip.name}/{frame.name}.png" for frame in clip.frames]
    missing = (
        t for t, name in enumerate(names) if not (folder / MASKS / name).exists()
    )
    first = next(missing, len(names))
    if config.steady > 0 and first < len(names):
        first = 0  # every frame hears of those before it
    yield from itertools.repeat(None, first)
    if first == len(names):
        return
    evidence = evidence_of(run, clip, first)
    if evidence is None and config.evidence > 0:
        why = "a restored network"
        if not run.brought_in("align"):
            why = "flow of some frames only"
        logging.info("%s: %s, masks by appearance alone", clip.name, why)
    clip = dataclasses.replace(clip, frames=clip.frames[first:])
    soft = soft.rest(first)
    found = object_masks.binary_masks(run, clip, soft, channels, config.crf, evidence)
    for name, mask in zip(names[first:], found, strict=True):
        drawing.write_mask(folder / MASKS / name, mask)
        yield
