"""What goes along with an object and is none: shadow, reflection, smoke, spray, wake.

All of them are sheets of the kind "light": an optical flow sees them move with the
object, or nearly so, and the mask leaves them out. Body coordinates are those of
`bodies`: pixels, the centre at the origin, y down.
"""

import dataclasses
from collections.abc import Callable, Sequence

import cv2
import numpy as np
from jaxtyping import Float

from imas_jax.rendered import bodies, sheets, textures

FOOT = 0.45  # of a body's length below its centre: where it stands
Wobble = Callable[[float], Float[np.ndarray, "h w 2"]]


@dataclasses.dataclass(frozen=True)
class Puff:
    """A cloud of smoke, dust or spray.

    Attributes:
        image: RGBA in [0, 1], colour premultiplied.
        wobble: As in `sheets.Sheet`.
        place: Of its centre: from the body's, pixels, at the moment it was left.
        age: How long ago that was at time 0, frames; None while it hangs on the body.
        drift: How it moves in the world since then, pixels a frame.
        growth: Logarithm of how it grows a frame.
    """

    image: Float[np.ndarray, "h w 4"]
    wobble: Wobble
    place: Float[np.ndarray, "2"]
    age: float | None
    drift: Float[np.ndarray, "2"]
    growth: float


def shadow(
    rng: np.random.Generator, parts: Sequence[bodies.Part], length: float
) -> list[bodies.Part]:
    """Draw a body's shadow, or its image in a floor that shines."""
    strength = np.float32(rng.uniform(0.2, 0.6))
    mirrored = rng.random() < 0.5
    flat = np.eye(3)
    flat[1, 1] = -rng.uniform(0.7, 1.0) if mirrored else rng.uniform(-0.6, 0.3)
    flat[0, 1] = 0.0 if mirrored else rng.normal() * 0.6
    change = sheets.about(np.array([0.0, FOOT * length]), flat)

    def dim(part: bodies.Part) -> bodies.Part:
        soft = cv2.GaussianBlur(part.image, (0, 0), 1.5) * strength
        if not mirrored:
            soft[..., :3] = 0
        return bodies.Part(soft, _after(change, part), part.wobble)

    return [dim(part) for part in parts]


def reflection(
    rng: np.random.Generator,
    parts: Sequence[bodies.Part],
    length: float,
    line: float,
    unit: float,
) -> list[bodies.Part]:
    """Draw a body's image in water: upside down, darker, shaken by the waves.

    Args:
        rng: Source of chance.
        parts: Of the body.
        length: Of the body, pixels.
        line: Where the water begins, below the body's centre.
        unit: Pixels of the frame for each of the reference's.
    """
    strength = np.float32(rng.uniform(0.35, 1.0))
    tint = (rng.uniform(0.45, 1.0) * rng.uniform(0.85, 1.1, 3)).astype(np.float32)
    change = sheets.about(
        np.array([0.0, line]), np.diag([1.0, -rng.uniform(0.75, 1.1), 1.0])
    )
    high = unit * np.exp(rng.uniform(np.log(0.3), np.log(5.0)))
    waves = [
        (2 * np.pi / (unit * rng.uniform(4, 30)), rng.uniform(0.15, 1.3), *phase)
        for phase in rng.uniform((-0.3, 0), (0.3, 6.28), (3, 2))
    ]

    def shaken(part: bodies.Part) -> Wobble:
        x, y = _in_body(part)
        far = np.float32(high) * np.clip(0.2 + (line - y) / length, 0.2, 1.5)

        def wobble(time: float) -> Float[np.ndarray, "h w 2"]:
            total = sum(
                np.sin(np.float32(k) * (y + np.float32(slope) * x) + (rate * time + at))
                for k, rate, slope, at in waves
            )
            field = np.stack([far * total, 0.5 * far * total], axis=-1)
            return field.astype(np.float32)

        return wobble

    def dim(part: bodies.Part) -> bodies.Part:
        image = cv2.GaussianBlur(part.image, (0, 0), 1.0) * strength
        image[..., :3] = np.minimum(image[..., :3] * tint, image[..., 3:])
        return bodies.Part(image, _after(change, part), shaken(part))

    return [dim(part) for part in parts]


def afloat(parts: Sequence[bodies.Part], line: float) -> list[bodies.Part]:
    """Leave of a body what is above the water at time 0."""

    def cut(part: bodies.Part) -> bodies.Part:
        above = np.clip(line - _in_body(part)[1] + 0.5, 0, 1)
        return dataclasses.replace(part, image=part.image * above[..., None])

    return [cut(part) for part in parts]


def puffs(
    rng: np.random.Generator, length: float, velocity: np.ndarray, water: bool
) -> list[Puff]:
    """Draw smoke or dust behind a body, or the foam of its wake."""
    tone = rng.uniform(0.55, 1.0) * np.sort(rng.uniform(0.8, 1.0, 3))[::-1]
    flat = rng.uniform(0.12, 0.4) if water else rng.uniform(0.5, 1.0)
    speed = float(np.linalg.norm(velocity))
    back = -velocity / max(speed, 1e-6)
    found = []
    for _ in range(int(rng.integers(2, 7))):
        size = length * rng.uniform(0.25, 0.8)
        image = _cloud(rng, size, flat, tone.astype(np.float32))
        hangs = rng.random() < 0.35
        low = np.array([0.0, rng.uniform(0.2, FOOT) * length])
        behind = low + rng.uniform(0.1, 0.6) * length * back
        drift = 0.3 * rng.random() * velocity + 0.02 * length * rng.normal(size=2)
        drift[1] = -abs(drift[1]) if not water else 0.2 * drift[1]
        age = None if hangs else rng.uniform(0.0, 2.0) * length / max(speed, 1.0)
        growth = rng.uniform(0.0, 0.03)
        found.append(Puff(image, _boil(rng, image), behind, age, drift, growth))
    return found


def puff_pose(
    puff: Puff, body_at: Callable[[float], Float[np.ndarray, "2"]]
) -> sheets.Pose:
    """Return where a puff is in the world.

    Args:
        puff: The puff.
        body_at: Time -> centre of the body that left it, in the world.
    """
    h, w = puff.image.shape[:2]
    middle = sheets.move(np.array([-w / 2, -h / 2]))

    def pose(time: float) -> Float[np.ndarray, "3 3"]:
        if puff.age is None:
            return sheets.move(body_at(time) + puff.place) @ middle
        since = time + puff.age
        centre = body_at(-puff.age) + puff.place + since * puff.drift
        grown = sheets.spin(0.0, float(np.exp(puff.growth * time)))
        return sheets.move(centre) @ grown @ middle

    return pose


def _cloud(
    rng: np.random.Generator, size: float, flat: float, tone: np.ndarray
) -> Float[np.ndarray, "h w 4"]:
    h, w = max(round(size * flat), 8), max(round(size), 8)
    y, x = np.linspace(-1, 1, h)[:, None], np.linspace(-1, 1, w)[None]
    inside = np.clip(1.2 * (1 - np.hypot(x, y)), 0, 1)
    grain = textures.octaves(rng, (h, w), 5, rng.uniform(0.6, 1.4))
    alpha = rng.uniform(0.2, 0.95) * np.clip(2 * inside * grain, 0, 1)
    shade = np.clip(tone * (0.8 + 0.4 * grain[..., None]), 0, 1)
    image = np.concatenate([shade * alpha[..., None], alpha[..., None]], axis=-1)
    return image.astype(np.float32)


def _boil(rng: np.random.Generator, image: np.ndarray) -> Wobble:
    h, w = image.shape[:2]
    grain = [textures.octaves(rng, (h, w), 3, 1.0) - 0.5 for _ in "xyxy"]
    fields = np.stack(grain, axis=-1) * np.float32(rng.uniform(0.05, 0.4) * min(h, w))
    rate = rng.uniform(0.1, 0.8)

    def wobble(time: float) -> Float[np.ndarray, "h w 2"]:
        now, then = np.float32(np.sin(rate * time)), np.float32(np.cos(rate * time))
        return fields[..., :2] * now + fields[..., 2:] * then

    return wobble


def _in_body(part: bodies.Part) -> tuple[np.ndarray, np.ndarray]:
    """Return x and y of every sheet pixel in body coordinates, at time 0."""
    h, w = part.image.shape[:2]
    y, x = np.mgrid[:h, :w].astype(np.float32)
    a, b = part.pose(0.0)[:2].astype(np.float32)
    return a[0] * x + a[1] * y + a[2], b[0] * x + b[1] * y + b[2]


def _after(change: Float[np.ndarray, "3 3"], part: bodies.Part) -> sheets.Pose:
    return lambda time: change @ part.pose(time)
