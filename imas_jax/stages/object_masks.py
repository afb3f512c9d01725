"""The object's masks of a clip, soft or binary."""

import collections
import itertools
from collections.abc import Iterable, Iterator

import numpy as np
from jaxtyping import Bool, Float, UInt8
from ml_collections import ConfigDict

from imas_jax.appearance import alignment, crf, parts
from imas_jax.data import images
from imas_jax.data.clips import Clip
from imas_jax.runs.run import Run
from imas_jax.stages import inputs, motion_evidence, settle
from imas_jax.stages.predictor import Predictor, to_frame
from imas_jax.stages.soft_masks import SoftMasks


def object_probabilities(
    soft: SoftMasks | np.ndarray, channels: tuple[int, ...]
) -> Iterator[Float[np.ndarray, "hm wm"]]:
    """Yield a clip's object masks in order.

    Args:
        soft: Soft masks of all channels, `(t, hm, wm, c)`.
        channels: The object's channels.
    """
    for frame in soft:
        yield alignment.object_probability(frame.astype(np.float32), channels)


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
            `predict.evidence` in the probability; None for no share. With it, masks
            may be steadied along the flow, `predict.steady`.
    """
    if not preset and evidence is None:
        for frame in soft:
            whole = to_frame(frame.astype(np.float32), clip.native_size)
            yield binary(run.config.predict, whole, channels)
        return
    found = object_probabilities(soft, channels)
    size = clip.size if preset else clip.native_size
    whole = (to_frame(frame[..., None], size)[..., 0] for frame in found)
    if evidence is not None:
        share = np.float32(run.config.predict.evidence)
        whole = (
            (1 - share) * frame + share * to_frame(one[..., None], size)[..., 0]
            for frame, one in zip(whole, evidence, strict=True)
        )
        whole = steadied(run, clip, whole)
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
    """
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


def steadied(
    run: Run, clip: Clip, likely: Iterator[Float[np.ndarray, "h w"]]
) -> Iterator[Float[np.ndarray, "h w"]]:
    """Let each frame's probabilities hear those of its neighbours, along the flow.

    Args:
        run: Its flow is computed; `predict.steady` is read, 0 changes nothing.
        clip: Any of its clips, of which all frames were trained on.
        likely: Of every frame, in order; of one size.
    """
    kept = run.config.predict.steady
    if kept == 0:
        return likely
    flow, gap = inputs.flow(run), run.config.flow.gaps[0]
    shots = inputs.trained(run.config, clip)  # no pair reaches across its cuts
    return motion_evidence.steadied(flow, shots, gap, likely, kept)


def _refined(
    config: ConfigDict,
    pairs: Iterator[tuple[np.ndarray, np.ndarray]],
    preset: str,
    size: tuple[int, int],
) -> Iterator[Bool[np.ndarray, "h w"]]:
    """Refine (frame, probability) pairs by the CRF; bring masks to `size`.

    A frame in which it leaves too little of the mask as it was stays as it was: colour
    that misleads mostly takes all of an object, or the whole background. What then lies
    along the frame's border may go (`predict.border_contact`).
    """
    solver, workers = config.crf.solver, config.target.workers
    waiting: collections.deque[np.ndarray] = collections.deque()

    def seen() -> Iterator[tuple[np.ndarray, np.ndarray]]:
        for frame, likely in pairs:
            waiting.append(likely)
            yield frame, likely

    for result in crf.refine_many(seen(), crf.get_preset(preset), workers, solver):
        likely = waiting.popleft()
        if agreement(likely > 0.5, result.mask) >= config.predict.crf_agreement:
            likely = result.probability
        likely = parts.clear_of_border(likely, config.predict.border_contact)
        yield (likely if likely.shape == size else images.resize(likely, size)) > 0.5


def agreement(first: Bool[np.ndarray, "h w"], second: Bool[np.ndarray, "h w"]) -> float:
    """Return the intersection over union of two masks; of two empty ones 1."""
    either = np.count_nonzero(first | second)
    return np.count_nonzero(first & second) / either if either else 1.0


def binary(
    config: ConfigDict, whole: np.ndarray, channels: tuple[int, ...]
) -> Bool[np.ndarray, "h w"]:
    """Read the object off soft masks as `config.binarize` says (`predict`)."""
    if config.binarize == "threshold":
        return alignment.object_probability(whole, channels) > config.threshold
    return alignment.object_mask(whole, channels)
