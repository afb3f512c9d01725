"""The object's masks of a clip, soft or binary, alone or agreeing over the clip."""

import collections
import itertools
from collections.abc import Iterable, Iterator

import cv2
import numpy as np
from jaxtyping import Bool, Float, UInt8
from ml_collections import ConfigDict

from imas_jax.appearance import alignment, crf, whole_clip
from imas_jax.data import images
from imas_jax.data.clips import Clip, pairs
from imas_jax.errors import UserError
from imas_jax.flow.files import Direction
from imas_jax.runs.run import Run
from imas_jax.stages import inputs, settle
from imas_jax.stages.predictor import Predictor, to_frame
from imas_jax.stages.soft_masks import SoftMasks

NOWHERE = 1e4  # px, both ways: forward and backward disagree, so a cut is not crossed


def object_probabilities(
    run: Run,
    clip: Clip,
    soft: SoftMasks | np.ndarray,
    channels: tuple[int, ...],
    together: str,
) -> Iterator[Float[np.ndarray, "hm wm"]]:
    """Yield a clip's object masks in order; nothing is computed before the first.

    Args:
        run: Says where the flow lies.
        clip: The clip.
        soft: Soft masks of all channels, `(t, hm, wm, c)`.
        channels: The object's channels.
        together: "off", or what `whole_clip.get_settings` reads.
    """
    settings = whole_clip.get_settings(together)
    alone = (
        alignment.object_probability(frame.astype(np.float32), channels)
        for frame in soft
    )
    if settings is None:
        yield from alone
        return
    size = (soft.shape[1], soft.shape[2])
    frames = np.stack(
        [
            cv2.resize(clip.read(t), size[::-1], interpolation=cv2.INTER_AREA)
            for t in range(len(soft))
        ]
    )
    flow = _clip_flow(run, clip, size)
    yield from whole_clip.refine_clip(np.stack(list(alone)), frames, flow, settings)


def binary_masks(
    run: Run,
    clip: Clip,
    soft: SoftMasks | np.ndarray,
    channels: tuple[int, ...],
    preset: str,
    evidence: Iterator[Float[np.ndarray, "h w"]] | None = None,
) -> Iterator[Bool[np.ndarray, "h w"]]:
    """Turn a clip's soft masks into binary ones at the files' own size, in order.

    What is enlarged is the probability, before it is cut: a mask that is cut at the
    size that is worked on would have its pixels for edges. The CRF runs at that size.

    Args:
        run: The run; `config.predict` is read.
        clip: The clip.
        soft: Its soft masks `(t, hm, wm, c)`.
        channels: The object's channels.
        preset: Post-processing CRF, or "" for none.
        evidence: The motion evidence of the same frames, which has a share of
            `predict.evidence` in the probability; None for no share.
    """
    together = run.config.predict.whole_clip
    if not preset and together == whole_clip.OFF and evidence is None:
        for frame in soft:
            whole = to_frame(frame.astype(np.float32), clip.native_size)
            yield binary(run.config.predict, whole, channels)
        return
    found = object_probabilities(run, clip, soft, channels, together)
    size = clip.size if preset else clip.native_size
    whole = (to_frame(frame[..., None], size)[..., 0] for frame in found)
    if evidence is not None:
        share = np.float32(run.config.predict.evidence)
        whole = (
            (1 - share) * frame + share * to_frame(one[..., None], size)[..., 0]
            for frame, one in zip(whole, evidence, strict=True)
        )
    if not preset:
        # Channels are one by now: what is likelier object than not.
        yield from (frame > 0.5 for frame in whole)
        return
    pairs = ((clip.read(t), frame) for t, frame in enumerate(whole))
    yield from _refined(run.config, pairs, preset, clip.native_size)


def masks_of_stream(
    config: ConfigDict,
    predictor: Predictor,
    frames: Iterable[UInt8[np.ndarray, "h w 3"]],
    channels: tuple[int, ...],
) -> Iterator[Bool[np.ndarray, "h w"]]:
    """Yield the masks of frames as they come, at their own size, by appearance alone.

    As `binary_masks` without motion evidence, to the bit, for frames that are no clip
    on disk; a few frames are held at a time.

    Args:
        config: Its `predict`, `target.workers` and `crf` are read.
        predictor: The network.
        frames: Of one size.
        channels: The object's channels.

    Raises:
        UserError: If masks are to agree over the whole clip, which no stream has.
    """
    if config.predict.whole_clip != whole_clip.OFF:
        raise UserError(
            f"predict.whole_clip = {config.predict.whole_clip!r} on a stream of frames",
            "frames that are seen one by one",
            "set predict.whole_clip to 'off', or predict a clip on disk: "
            "--config.restore=RUN",
        )
    waiting: collections.deque[tuple[np.ndarray, tuple[int, int]]] = collections.deque()

    def seen() -> Iterator[np.ndarray]:
        for frame in frames:
            native = (frame.shape[0], frame.shape[1])
            small = images.resize(frame, settle.worked_on_at(native))
            waiting.append((small, native))
            yield small

    def pairs(soft: Iterator[np.ndarray]) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        for one in soft:
            small, _ = waiting.popleft()
            likely = alignment.object_probability(one, channels)
            yield small, to_frame(likely[..., None], small.shape[:2])[..., 0]

    # Rounded as `soft_masks` rounds what it stores.
    soft = (one.astype(np.float16).astype(np.float32) for one in predictor(seen()))
    first = next(soft, None)
    if first is None:
        return
    every, native = itertools.chain((first,), soft), waiting[0][1]
    if config.predict.crf:
        yield from _refined(config, pairs(every), config.predict.crf, native)
        return
    for one in every:
        waiting.popleft()
        yield binary(config.predict, to_frame(one, native), channels)


def _refined(
    config: ConfigDict,
    pairs: Iterator[tuple[np.ndarray, np.ndarray]],
    preset: str,
    size: tuple[int, int],
) -> Iterator[Bool[np.ndarray, "h w"]]:
    """Refine (frame, probability) pairs by the CRF; bring masks to `size`."""
    solver, workers = config.crf.solver, config.target.workers
    for result in crf.refine_many(pairs, crf.get_preset(preset), workers, solver):
        if result.mask.shape == size:
            yield result.mask
        else:
            yield images.resize(result.probability, size) > 0.5


def binary(
    config: ConfigDict, whole: np.ndarray, channels: tuple[int, ...]
) -> Bool[np.ndarray, "h w"]:
    """Read the object off soft masks as `config.binarize` says (`predict`)."""
    if config.binarize == "threshold":
        return alignment.object_probability(whole, channels) > config.threshold
    return alignment.object_mask(whole, channels)


def _clip_flow(run: Run, clip: Clip, size: tuple[int, int]) -> whole_clip.ClipFlow:
    """Read the flow between neighbours, on the masks' grid."""
    if 1 not in run.config.flow.gaps:
        raise UserError(
            f"whole_clip with flow.gaps = {tuple(run.config.flow.gaps)}",
            "flow between neighbouring frames: gap 1",
            "add 1 to flow.gaps, or set target.whole_clip and predict.whole_clip=off",
        )
    trained = inputs.trained(run.config, clip)
    if len(trained.frames) < len(clip.frames):
        raise UserError(
            f"whole_clip on {clip.name}, but flow of {len(trained.frames)} of its "
            f"{len(clip.frames)} frames",
            "flow between all neighbours",
            "set --config.data.frames=0, or target.whole_clip and "
            "predict.whole_clip=off",
        )
    run.make("flow")  # finished long ago, unless another run was restored
    folder = inputs.flow(run)
    known = {pair.first for pair in pairs((trained,))}

    def grid(t: int, which: Direction) -> np.ndarray:
        if t not in known:
            return np.full((*size, 2), NOWHERE, np.float32)
        field = folder.read(clip.name, t, which)
        return whole_clip.to_grid(field.flow, size, clip.size)

    def direction(which: Direction) -> np.ndarray:
        return np.stack([grid(t, which) for t in range(len(clip.frames) - 1)])

    return whole_clip.ClipFlow(direction("forward"), direction("backward"))
