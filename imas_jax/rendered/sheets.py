"""Sheets that move in continuous time: tracks, poses, and what a frame shows of them.

Coordinates are pixels of the frame, x right and y down, the centre of the first pixel
at (0, 0). Time is in frames and continuous, so that a shutter can stay open.
"""

import dataclasses
from collections.abc import Callable
from typing import Literal

import cv2
import numpy as np
from jaxtyping import Bool, Float

Kind = Literal["object", "world", "light"]
Pose = Callable[
    [float], Float[np.ndarray, "3 3"]
]  # time -> sheet coordinates to frame coordinates


@dataclasses.dataclass(frozen=True)
class Track:
    """A quantity over time: a parabola and a swing.

    Attributes:
        start: Value at time 0, a number or a vector; so are the others.
        speed: Change a frame at time 0.
        bend: Half the change of the speed a frame.
        swing: Amplitude of a sine that is 0 at time 0.
        rate: Of the sine, radians a frame.
        phase: Of the sine, radians.
    """

    start: np.ndarray | float = 0.0
    speed: np.ndarray | float = 0.0
    bend: np.ndarray | float = 0.0
    swing: np.ndarray | float = 0.0
    rate: float = 0.0
    phase: float = 0.0

    def at(self, time: float) -> np.ndarray:
        """Return the value at a time."""
        sway = np.sin(self.rate * time + self.phase) - np.sin(self.phase)
        straight = np.asarray(self.start) + np.asarray(self.speed) * time
        # An array of numbers too: NumPy's sums of them are no arrays.
        return np.asarray(
            straight + np.asarray(self.bend) * time**2 + np.asarray(self.swing) * sway
        )


@dataclasses.dataclass(frozen=True)
class Sheet:
    """A flat cut-out.

    Attributes:
        image: RGBA in [0, 1], colour premultiplied.
        pose: Where it is.
        kind: "object" moves on its own, "world" stands in the world and moves with the
            camera, "light" (shadow, reflection) is no surface at all.
        wobble: Displacement in sheet pixels by time, of every sheet pixel; or None.
    """

    image: Float[np.ndarray, "h w 4"]
    pose: Pose
    kind: Kind
    wobble: Callable[[float], Float[np.ndarray, "h w 2"]] | None = None


@dataclasses.dataclass(frozen=True)
class Scene:
    """A backdrop, sheets from back to front, and how they are filmed.

    Attributes:
        size: (h, w) of the frames.
        backdrop: Time -> what stands behind everything, RGB.
        sheets: From back to front.
        shutter: Share of a frame's time that the shutter is open.
    """

    size: tuple[int, int]
    backdrop: Callable[[float], Float[np.ndarray, "h w 3"]]
    sheets: tuple[Sheet, ...]
    shutter: float


def expose(scene: Scene, time: float, steps: int) -> Float[np.ndarray, "h w 3"]:
    """Return the light of a frame: the mean of some moments of an open shutter."""
    moments = time + scene.shutter * (np.arange(steps) - (steps - 1) / 2) / steps
    return np.mean([_compose(scene, float(t))[0] for t in moments], axis=0)


def object_mask(scene: Scene, time: float) -> Bool[np.ndarray, "h w"]:
    """Return where objects are at least half of what is seen, at one moment."""
    return _compose(scene, time)[1] >= 0.5


def move(offset: np.ndarray) -> Float[np.ndarray, "3 3"]:
    """Return the matrix of a translation."""
    return np.array([[1.0, 0, offset[0]], [0, 1, offset[1]], [0, 0, 1]])


def spin(angle: float, factor: float = 1.0) -> Float[np.ndarray, "3 3"]:
    """Return the matrix of a rotation about the origin and an enlargement."""
    c, s = factor * np.cos(angle), factor * np.sin(angle)
    return np.array([[c, -s, 0], [s, c, 0], [0, 0, 1]])


def about(
    centre: np.ndarray, matrix: Float[np.ndarray, "3 3"]
) -> Float[np.ndarray, "3 3"]:
    """Return a matrix applied about a centre."""
    return move(centre) @ matrix @ move(-np.asarray(centre))


def _compose(
    scene: Scene, time: float
) -> tuple[Float[np.ndarray, "h w 3"], Float[np.ndarray, "h w"]]:
    """Return colours, and how much of each pixel is object."""
    colour = scene.backdrop(time).copy()
    share = np.zeros(scene.size, np.float32)
    for sheet in scene.sheets:
        image = sheet.image
        if sheet.wobble is not None:
            image = _bent(image, sheet.wobble(time))
        matrix = sheet.pose(time)
        box = _reach(matrix, image.shape[:2], scene.size)
        if box is None:
            continue  # out of sight
        (top, left), (h, w) = box
        placed = move(np.array([-left, -top])) @ matrix
        seen = cv2.warpAffine(image, placed[:2], (w, h), flags=cv2.INTER_LINEAR)
        window = np.s_[top : top + h, left : left + w]
        through = 1.0 - seen[..., 3]
        colour[window] = colour[window] * through[..., None] + seen[..., :3]
        if sheet.kind != "light":
            share[window] *= through
        if sheet.kind == "object":
            share[window] += seen[..., 3]
    return colour, share


def _bent(
    image: Float[np.ndarray, "h w 4"], offset: Float[np.ndarray, "h w 2"]
) -> Float[np.ndarray, "h w 4"]:
    h, w = image.shape[:2]
    x = np.arange(w, dtype=np.float32)[None] + offset[..., 0]
    y = np.arange(h, dtype=np.float32)[:, None] + offset[..., 1]
    return cv2.remap(image, x, y, cv2.INTER_LINEAR, borderMode=cv2.BORDER_CONSTANT)


def _reach(
    matrix: Float[np.ndarray, "3 3"], sheet: tuple[int, int], frame: tuple[int, int]
) -> tuple[tuple[int, int], tuple[int, int]] | None:
    """Return (top, left), (h, w) of the pixels a sheet can touch, or None."""
    h, w = sheet
    corners = np.array([(x, y, 1) for x in (-1, w) for y in (-1, h)]) @ matrix[:2].T
    low = np.maximum(np.floor(corners.min(axis=0)).astype(int), 0)
    high = np.minimum(np.ceil(corners.max(axis=0)).astype(int) + 1, frame[::-1])
    if (high <= low).any():
        return None
    return (int(low[1]), int(low[0])), (int(high[1] - low[1]), int(high[0] - low[0]))
