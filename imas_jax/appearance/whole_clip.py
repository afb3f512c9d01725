"""What single frames cannot know: masks that agree along the flow and in colour.

Ours, not the paper's, and off by default: label-free help for runs on one clip, whose
networks see little. A mask that flickers is pulled to its neighbours along the optical
flow; then the colours that the clip's masks hold as a whole say which pixels belong to
the object, in every frame. Pure NumPy on arrays of one clip, all at mask resolution.
"""

import dataclasses

import cv2
import numpy as np
from jaxtyping import Float, Int, UInt8

from imas_jax.appearance import presets
from imas_jax.errors import UserError

_BINS = 16  # of each Lab axis
_MARGIN = 1e-4  # probabilities stay this far from 0 and 1


@dataclasses.dataclass(frozen=True)
class WholeClip:
    """How far a clip's frames pull on each other.

    Attributes:
        passes: Times that each mask meets its two neighbours; information travels so
            many frames.
        pull: Weight of the neighbours in each pass, in [0, 1).
        tolerance: Pixels of the mask by which forward and backward flow may disagree
            before they are trusted less.
        colour: Weight of the colour's log-odds beside the mask's; 0 leaves colour out.
        rounds: Times that colours and masks are found from each other.
        largest: Bound of the colour's log-odds before weighting, nats.
        blur: Sigma of a Gaussian over the log-odds, pixels of the mask.
    """

    passes: int = 8
    pull: float = 0.67
    tolerance: float = 0.5
    colour: float = 1.0
    rounds: int = 3
    largest: float = 3.0
    blur: float = 0.75


OFF = "off"
PRESETS = {OFF: WholeClip(passes=0, colour=0.0), "on": WholeClip()}


@dataclasses.dataclass(frozen=True)
class ClipFlow:
    """Flow of the `n` pairs of neighbouring frames, in pixels of the grid it lives on.

    Attributes:
        forward: t -> t+1 on frame t's grid.
        backward: t+1 -> t on frame t+1's grid.
    """

    forward: Float[np.ndarray, "n h w 2"]
    backward: Float[np.ndarray, "n h w 2"]


def get_settings(text: str) -> WholeClip | None:
    """Read "off" (None), "on", or e.g. "on:passes=4,colour=1.5".

    Raises:
        UserError: If it is something else.
    """
    found = presets.read(text, PRESETS, "whole_clip")
    if found == PRESETS[OFF]:
        return None
    if not (0 <= found.pull < 1 and found.tolerance > 0 and found.rounds >= 1):
        raise UserError(
            f"whole_clip = {text!r}",
            "pull in [0, 1), tolerance above 0, rounds of 1 or more",
            "correct the number; colour=0 leaves colour out",
        )
    return found


def refine_clip(
    masks: Float[np.ndarray, "t h w"],
    frames: UInt8[np.ndarray, "t h w 3"],
    flow: ClipFlow,
    settings: WholeClip,
) -> Float[np.ndarray, "t h w"]:
    """Let a clip's soft masks agree along the flow, then in colour.

    Args:
        masks: The object's soft masks, in [0, 1].
        frames: The frames at mask resolution (area-averaged), RGB.
        flow: Between the frames, at mask resolution.
        settings: How far.
    """
    return agree_in_colour(smooth_along_flow(masks, flow, settings), frames, settings)


def smooth_along_flow(
    masks: Float[np.ndarray, "t h w"], flow: ClipFlow, settings: WholeClip
) -> Float[np.ndarray, "t h w"]:
    """Average each mask with its neighbours where the flow leads to them.

    A neighbour counts by how well forward and backward flow cancel there: where
    something appears or hides they do not, and the mask keeps its own opinion.
    """
    pairs = list(zip(flow.forward, flow.backward, strict=True))
    after = [_trust(f, b, settings.tolerance) for f, b in pairs]
    before = [_trust(b, f, settings.tolerance) for f, b in pairs]
    share = settings.pull / 2
    for _ in range(settings.passes):
        total = masks * (1 - settings.pull)
        weight = np.full(masks.shape, 1 - settings.pull, np.float32)
        for t, (forward, backward) in enumerate(pairs):
            total[t] += share * after[t] * _warp(masks[t + 1], forward)
            weight[t] += share * after[t]
            total[t + 1] += share * before[t] * _warp(masks[t], backward)
            weight[t + 1] += share * before[t]
        masks = (total / weight).astype(np.float32)
    return masks


def agree_in_colour(
    masks: Float[np.ndarray, "t h w"],
    frames: UInt8[np.ndarray, "t h w 3"],
    settings: WholeClip,
) -> Float[np.ndarray, "t h w"]:
    """Add the log-odds of each pixel's colour, over the clip, to the mask's own.

    Masks without any object, or with nothing else, come back as they are.
    """
    if not settings.colour:
        return masks
    bins = np.stack([_colour_bins(frame) for frame in frames])
    clipped = np.clip(masks, _MARGIN, 1 - _MARGIN)
    own, found = np.log(clipped / (1 - clipped)), masks
    for _ in range(settings.rounds):
        inside = np.bincount(bins.ravel(), found.ravel(), _BINS**3)
        outside = np.bincount(bins.ravel(), 1 - found.ravel(), _BINS**3)
        if min(inside.sum(), outside.sum()) < 1:
            return masks
        # A colour never seen inside (or outside) counts as seen 1e-5 of the time.
        odds = np.log(inside / inside.sum() + 1e-5)
        odds -= np.log(outside / outside.sum() + 1e-5)
        odds = np.clip(odds, -settings.largest, settings.largest)[bins]
        if settings.blur:
            odds = np.stack(
                [cv2.GaussianBlur(one, (0, 0), settings.blur) for one in odds]
            )
        found = 1 / (1 + np.exp(-(own + settings.colour * odds)))
    return found.astype(np.float32)


def to_grid(
    flow: Float[np.ndarray, "hf wf 2"],
    size: tuple[int, int],
    frame_size: tuple[int, int],
) -> Float[np.ndarray, "h w 2"]:
    """Bring a flow in pixels of the frame to a grid of `size` and its pixels."""
    small = cv2.resize(
        flow.astype(np.float32), size[::-1], interpolation=cv2.INTER_AREA
    )
    scale = np.array([size[1] / frame_size[1], size[0] / frame_size[0]], np.float32)
    return small * scale


def _trust(
    there: Float[np.ndarray, "h w 2"],
    back: Float[np.ndarray, "h w 2"],
    tolerance: float,
) -> Float[np.ndarray, "h w"]:
    """Return 1 where going there and back returns to the start, towards 0 elsewhere."""
    gap = np.square(there + _warp(back, there)).sum(axis=-1)
    return np.exp(-gap / (2 * tolerance**2))


def _warp(
    values: Float[np.ndarray, "h w *k"], flow: Float[np.ndarray, "h w 2"]
) -> Float[np.ndarray, "h w *k"]:
    """Read `values` where the flow leads; beyond the border the edge repeats."""
    h, w = values.shape[:2]
    x, y = np.meshgrid(np.arange(w, dtype=np.float32), np.arange(h, dtype=np.float32))
    return cv2.remap(
        values,
        x + flow[..., 0],
        y + flow[..., 1],
        cv2.INTER_LINEAR,
        borderMode=cv2.BORDER_REPLICATE,
    )


def _colour_bins(frame: UInt8[np.ndarray, "h w 3"]) -> Int[np.ndarray, "h w"]:
    """Number the cell of Lab that each pixel falls in.

    a and b of photographs fill half of their axes: only the middle half is divided.
    """
    lab = cv2.cvtColor(frame, cv2.COLOR_RGB2LAB).astype(int)
    light = lab[..., 0] // 16
    chroma = np.clip((lab[..., 1:] - 64) // 8, 0, _BINS - 1)
    return (light * _BINS + chroma[..., 0]) * _BINS + chroma[..., 1]
