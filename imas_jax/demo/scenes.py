"""What moves in the demo, and how: cut-outs of photographs and their poses in time.

The photographs, with their licences, are in `demo/cutouts.py`. No photograph is an
object in one clip and background in another: one network sees all clips, and would be
asked to call the same pixels both.
"""

import dataclasses
from collections.abc import Callable, Sequence

import numpy as np
from jaxtyping import Float

from imas_jax.demo.cutouts import (
    SUPERSAMPLE,
    cut_out,
    faded,
    mirror_floor,
    paint_over,
    read_photo,
    resample,
    shadow,
    tint,
)
from imas_jax.demo.poses import Layer, Pose, Scene, move, poses, turn

# Speeds and sizes below are in pixels of a frame this high, and scale with the frame.
REFERENCE_HEIGHT = 240


@dataclasses.dataclass(frozen=True)
class Take:
    """What a scene is built for: frame size, number of frames, and its own chance."""

    height: int
    width: int
    frames: int
    rng: np.random.Generator

    @property
    def unit(self) -> float:
        """Pixels of this frame in one pixel of the reference frame."""
        return self.height / REFERENCE_HEIGHT

    def sign(self) -> float:
        """Draw a direction, -1 or 1."""
        return float(self.rng.choice([-1.0, 1.0]))

    def uniform(self, low: float, high: float) -> float:
        """Draw a number."""
        return float(self.rng.uniform(low, high))


def build_scenes(
    size: tuple[int, int], frames: int, seed: int, names: Sequence[str] = ()
) -> tuple[Scene, ...]:
    """Build the demo's scenes.

    Each scene has randomness of its own, so leaving one out changes no other.

    Args:
        size: `(h, w)` of the frames.
        frames: Number of frames of each clip.
        seed: Other seeds give other places, speeds, directions and backgrounds.
        names: Only these; empty takes all of `SCENES`.
    """
    scenes = []
    for number, (name, build) in enumerate(SCENES.items()):
        if names and name not in names:
            continue
        rng = np.random.default_rng([seed, number])
        take = Take(size[0], size[1], frames, rng)
        layers = build(take)
        swing = 0.02 * np.sin(np.linspace(0, take.uniform(2.0, 6.0), frames))
        scenes.append(Scene(name, layers, tuple((1.0 + swing).tolist())))
    return tuple(scenes)


def astronaut(take: Take) -> tuple[Layer, ...]:
    """Articulated: a bust walks past, the head nods and the helmet is waved."""
    photo = read_photo("astronaut.png")
    height = take.uniform(0.80, 0.88) * take.height
    scale = height / 512
    # The neck under the chin: without it a nod would bare the photograph's own chin.
    collar = paint_over(photo, "head", (16, 16, 18))
    bust = cut_out(collar, "torso", scale)
    head = cut_out(photo, "head", scale)
    helmet = cut_out(photo, "helmet", scale)
    path = walk(take, 320 * scale, speed=(1.8, 2.8))
    time = np.arange(take.frames)
    step = take.uniform(0.45, 0.6)
    path[:, 1] = take.height - 0.94 * height + 3 * take.unit * np.sin(2 * step * time)
    lean = np.radians(3.0) * np.sin(step * time)
    nod = np.radians(take.uniform(8.0, 11.0)) * np.sin(0.8 * step * time + 1)
    wave = np.radians(take.uniform(12.0, 16.0)) * np.sin(step * time + 2) - 0.15
    waist = np.array([180.0, 512.0]) * scale
    body = [move(p) @ turn(a, waist) for p, a in zip(path, lean, strict=True)]
    neck, elbow = np.array([220.0, 190.0]) * scale, np.array([250.0, 470.0]) * scale
    tilted = [b @ turn(a, neck) for b, a in zip(body, nod, strict=True)]
    waved = [b @ turn(a, elbow) for b, a in zip(body, wave, strict=True)]
    behind = still(take, cover(take, read_photo("rocket.jpg"), zoom=(1.0, 1.25)))
    return (
        behind,
        Layer(bust, "object", poses(body)),
        Layer(head, "object", poses(tilted)),
        Layer(helmet, "object", poses(waved)),
    )


def cat_on_mirror(take: Take) -> tuple[Layer, ...]:
    """A reflection moves along, and is not the object."""
    photo = read_photo("chelsea.png")
    height = take.uniform(0.42, 0.48) * take.height
    scale = height / 300
    image = cut_out(photo, "cat", scale)
    floor = take.uniform(0.62, 0.68) * take.height
    path = walk(take, 400 * scale, speed=(1.6, 2.6))
    hop = take.uniform(7.0, 11.0) * take.unit
    time = np.arange(take.frames)
    path[:, 1] = floor - 284 * scale - hop * np.abs(np.sin(0.28 * time))
    body = [move(p) for p in path]
    mirror = np.array([[1.0, 0, 0], [0, -1, 2 * floor], [0, 0, 1]])
    ripple = tuple(
        Pose((mirror @ b)[:2], 1.2 * take.unit, 18 * take.unit, 0.7 * t)
        for t, b in enumerate(body)
    )
    wall = cover(take, tint(read_photo("brick.png"), (1.12, 0.88, 0.66)), (1.0, 1.3))
    return (
        still(take, mirror_floor(wall, floor)),
        Layer(faded(image, 0.5), "light", ripple),
        Layer(image, "object", poses(body)),
    )


def cup_and_pan(take: Take) -> tuple[Layer, ...]:
    """The camera pans while a cup crosses the picture."""
    photo = read_photo("coffee.png")
    scale = take.uniform(0.44, 0.50) * take.height / 400
    image = cut_out(photo, "cup", scale)
    pan = take.sign() * take.uniform(1.4, 2.2) * take.unit
    travel = abs(pan) * take.frames
    wide = cover(take, read_photo("ihc.png"), (1.0, 1.0), extra=travel)
    start = 0.0 if pan < 0 else -travel
    time = np.arange(take.frames)
    shake = 0.5 * take.unit * np.sin(0.9 * time + take.uniform(0.0, 6.0))
    camera = [move((start + pan * t, s)) for t, s in zip(time, shake, strict=True)]
    path = walk(take, 560 * scale, speed=(0.5, 0.9), sign=np.sign(pan))
    sink = take.uniform(10.0, 16.0) * take.unit * np.sin(0.2 * time)
    path[:, 1] = take.uniform(0.30, 0.42) * take.height + sink
    spin = np.radians(22) * np.sin(0.2 * time)
    centre = np.array([280.0, 205.0]) * scale
    body = [move(p) @ turn(a, centre) for p, a in zip(path, spin, strict=True)]
    return (
        Layer(wide, "background", poses(camera)),
        Layer(image, "object", poses(body)),
    )


def shuttle_pauses(take: Take) -> tuple[Layer, ...]:
    """An object stands still for the middle third of the clip."""
    photo = read_photo("astronaut.png")
    scale = take.uniform(0.64, 0.70) * take.height / 275
    image = cut_out(photo, "shuttle", scale)
    first, second = take.frames // 3, 2 * take.frames // 3
    velocity = np.zeros((take.frames, 2))
    sign = take.sign()
    velocity[:first, 0] = sign * take.uniform(2.2, 3.2)
    velocity[:first, 1] = take.uniform(-0.8, 0.8)
    velocity[second:, 0] = sign * take.uniform(1.6, 2.6)
    velocity[second:, 1] = take.uniform(-2.4, -1.2)
    path = np.cumsum(velocity, axis=0) * take.unit
    middle = np.array([0.5 * take.width, 0.58 * take.height])
    path += middle - path.mean(axis=0) - np.array([405.0, 137.0]) * scale
    path[:, 0] += take.uniform(-30.0, 30.0) * take.unit
    ground = tint(read_photo("gravel.png"), (1.08, 1.0, 0.9))
    behind = still(take, cover(take, ground, (1.0, 1.4)))
    body = [move(p) for p in path]
    cast = move((5 * take.unit, 4 * take.unit))
    return (
        behind,
        Layer(shadow(image, 0.4), "light", poses([cast @ b for b in body])),
        Layer(image, "object", poses(body)),
    )


def cat_sways(take: Take) -> tuple[Layer, ...]:
    """Deforming: a cat sways like a balloon while the camera shakes."""
    photo = read_photo("chelsea.png")
    scale = take.uniform(0.44, 0.52) * take.height / 300
    image = cut_out(photo, "cat", scale)
    path = walk(take, 400 * scale, speed=(1.0, 1.5))
    time = np.arange(take.frames)
    path[:, 1] = 0.2 * take.height + 9 * take.unit * np.sin(0.18 * time)
    sway, rate = take.uniform(8.0, 11.0) * take.unit, take.uniform(0.22, 0.30)
    body = tuple(
        Pose(move(p)[:2], sway, 340 * scale, rate * t) for t, p in enumerate(path)
    )
    lawn = tint(read_photo("grass.png"), (1.16, 0.98, 0.72))
    lawn = cover(take, lawn, (1.0, 1.3), extra=12 * take.unit)
    jitter = 1.5 * take.unit * np.sin(np.outer(time, [0.55, 0.8]))
    offset = np.array([-6.0, -6.0]) * take.unit
    camera = [move(offset + j) for j in jitter]
    return (
        Layer(lawn, "background", poses(camera)),
        Layer(image, "object", body),
    )


SCENES: dict[str, Callable[[Take], tuple[Layer, ...]]] = {
    "astronaut": astronaut,
    "cat-mirror": cat_on_mirror,
    "cup-pan": cup_and_pan,
    "shuttle-pause": shuttle_pauses,
    "cat-sway": cat_sways,
}


def walk(
    take: Take, width: float, speed: tuple[float, float], sign: float = 0.0
) -> np.ndarray:
    """Draw a path across the frame's middle, `(frames, 2)`; y is left at 0.

    Args:
        take: The take.
        width: Width of the object's layer, frame pixels.
        speed: Range of the speed, reference pixels a frame.
        sign: Direction, 1 to the right; 0 draws it.
    """
    velocity = (sign or take.sign()) * take.uniform(*speed) * take.unit
    time = np.arange(take.frames) - (take.frames - 1) / 2
    middle = 0.5 * take.width + take.uniform(-0.08, 0.08) * take.width
    # Things hurry and dawdle: speed swings between 0.1 and 1.9 of its mean, twice.
    turns = 4 * np.pi / take.frames
    eased = time + 0.9 / turns * np.sin(turns * time + take.uniform(0.0, 2 * np.pi))
    path = np.zeros((take.frames, 2))
    path[:, 0] = middle - width / 2 + velocity * eased
    return path


def cover(
    take: Take,
    photo: np.ndarray,
    zoom: tuple[float, float],
    extra: float = 0.0,
) -> Float[np.ndarray, "h w 4"]:
    """Cut a background out of a photograph: place, zoom and mirroring are drawn.

    Args:
        take: The take.
        photo: The photograph, `(h, w, 3)` uint8.
        zoom: Range of the enlargement beyond what just covers the frame.
        extra: Pixels more than the frame, right and below, for a moving camera.
    """
    size = np.array([take.height + extra, take.width + extra])
    scale = take.uniform(*zoom) * float(np.max(size / photo.shape[:2]))
    image = photo[:, ::-1] if take.sign() < 0 else photo
    image = resample(image.astype(np.float32) / 255, scale)
    want = np.ceil(size * SUPERSAMPLE).astype(int)
    spare = np.maximum(np.array(image.shape[:2]) - want, 0)
    y, x = (take.rng.uniform(0, 1, 2) * spare).astype(int)
    crop = image[y : y + want[0], x : x + want[1]]
    return np.concatenate([crop, np.ones_like(crop[..., :1])], axis=-1)


def still(take: Take, image: np.ndarray) -> Layer:
    """Return a background that does not move."""
    return Layer(image, "background", poses([np.eye(3)] * take.frames))
