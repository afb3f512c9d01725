"""The object's masks of a clip, soft or binary, alone or agreeing over the clip."""

from collections.abc import Iterator

import cv2
import numpy as np
from jaxtyping import Bool, Float

from imas_jax.appearance import alignment, crf, whole_clip
from imas_jax.data import images
from imas_jax.data.clips import Clip, pairs
from imas_jax.errors import UserError
from imas_jax.flow.files import Direction
from imas_jax.runs.run import Run
from imas_jax.stages import inputs
from imas_jax.stages.predictor import to_frame
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
            yield binary(run, whole, channels)
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
    results = crf.refine_many(
        pairs,
        crf.get_preset(preset),
        run.config.target.workers,
        run.config.crf.solver,
    )
    for result in results:
        if clip.size == clip.native_size:
            yield result.mask
        else:
            yield images.resize(result.probability, clip.native_size) > 0.5


def binary(
    run: Run, whole: np.ndarray, channels: tuple[int, ...]
) -> Bool[np.ndarray, "h w"]:
    """Read the object off soft masks as `predict.binarize` says."""
    config = run.config.predict
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
