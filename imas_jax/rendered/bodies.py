"""Things that move: blobs, joined blobs, figures, beasts, vehicles, each of parts.

A body has coordinates of its own, in pixels, its centre at the origin and y down. A
part is a sheet with a pose in them: limbs swing about joints, wheels turn, blobs bend.
"""

import dataclasses
from collections.abc import Callable, Sequence

import cv2
import numpy as np
from jaxtyping import Float

from imas_jax.rendered import sheets, textures

MARGIN = 2  # px around a sheet's shape, so that it ends in nothing


@dataclasses.dataclass(frozen=True)
class Part:
    """A sheet of a body.

    Attributes:
        image: RGBA in [0, 1], colour premultiplied.
        pose: Time -> sheet coordinates to body coordinates.
        wobble: As in `sheets.Sheet`.
    """

    image: Float[np.ndarray, "h w 4"]
    pose: sheets.Pose
    wobble: Callable[[float], Float[np.ndarray, "h w 2"]] | None = None


@dataclasses.dataclass(frozen=True)
class Skin:
    """Paints the parts of one body, most of them alike."""

    rng: np.random.Generator
    texture: Float[np.ndarray, "h w 3"]
    alike: float

    def cut(
        self,
        polygons: Sequence[Float[np.ndarray, "_ 2"]],
        joint: sheets.Track,
        at: Float[np.ndarray, "2"],
    ) -> Part:
        """Cut shapes out of a texture; they turn about the joint `at` by `joint`."""
        corners = np.concatenate(polygons)
        low = np.floor(corners.min(axis=0)) - MARGIN
        w, h = np.ceil(corners.max(axis=0) + MARGIN - low).astype(int)
        alpha = np.zeros((h, w), np.uint8)
        for polygon in polygons:
            points = np.round((polygon - low) * 16).astype(np.int32)
            cv2.fillPoly(alpha, [points], 255, cv2.LINE_AA, 4)
        image = self._paint(alpha.astype(np.float32) / 255)

        def pose(time: float) -> Float[np.ndarray, "3 3"]:
            return sheets.about(at, sheets.spin(float(joint.at(time)))) @ sheets.move(
                low
            )

        return Part(image, pose)

    def _paint(self, alpha: Float[np.ndarray, "h w"]) -> Float[np.ndarray, "h w 4"]:
        h, w = alpha.shape
        if self.rng.random() < self.alike:
            th, tw = self.texture.shape[:2]
            window = (min(h, th), min(w, tw))
            y = self.rng.integers(th - window[0] + 1)
            x = self.rng.integers(tw - window[1] + 1)
            colour = self.texture[y : y + window[0], x : x + window[1]]
            colour = cv2.resize(colour, (w, h), interpolation=cv2.INTER_LINEAR)
        else:
            colour = textures.draw_texture(self.rng, (max(h, 8), max(w, 8)))[:h, :w]
        top, bottom = self.rng.uniform(0.75, 1.2), self.rng.uniform(0.5, 1.1)
        light = np.linspace(top, bottom, h, dtype=np.float32)[:, None, None]
        colour = np.clip(colour * light, 0, 1)
        return np.concatenate([colour * alpha[..., None], alpha[..., None]], axis=-1)


def draw_body(rng: np.random.Generator, length: float) -> tuple[Part, ...]:
    """Draw a body.

    Args:
        rng: Source of chance.
        length: About its longer side, pixels.
    """
    side = max(int(length), 24)
    texture = textures.draw_texture(rng, (side, side))
    skin = Skin(rng, texture, alike=rng.choice([1.0, 0.8, 0.3]))
    kind = KINDS[rng.choice(len(KINDS), p=SHARES)]
    parts = kind(skin, length)
    if rng.random() < 0.3:
        bend = _sway(rng, length)
        parts = [dataclasses.replace(part, wobble=bend(part)) for part in parts]
    if rng.random() < 0.5:  # to the left instead of to the right
        mirror = np.diag([-1.0, 1.0, 1.0])
        parts = [_before(mirror, part) for part in parts]
    return tuple(parts)


def blob(skin: Skin, length: float) -> list[Part]:
    """Draw one closed curve."""
    rng = skin.rng
    shape = round_shape(rng, 0.5 * length, rng.uniform(0.4, 1.0))
    return [skin.cut([shape], sheets.Track(), np.zeros(2))]


def joined(skin: Skin, length: float) -> list[Part]:
    """Draw blobs that overlap and swing a little against one another."""
    rng, parts = skin.rng, []
    for _ in range(rng.integers(2, 5)):
        radius = length * rng.uniform(0.15, 0.35)
        centre = rng.uniform(-0.28, 0.28, 2) * length
        shape = centre + round_shape(rng, radius, rng.uniform(0.4, 1.0))
        parts.append(skin.cut([shape], swing(rng, 0.25), 0.5 * centre))
    return parts


def figure(skin: Skin, length: float) -> list[Part]:
    """Draw something upright with a head, two arms and two legs in two pieces each."""
    rng, unit = skin.rng, length
    wide = unit * rng.uniform(0.07, 0.13)
    hip, neck = np.array([0, 0.02]) * unit, np.array([0, -0.27]) * unit
    lean = rng.uniform(-0.25, 0.25) * unit
    neck[0] += lean
    legs = [limb(skin, hip, 0.48 * unit, 0.6 * wide, k * np.pi) for k in (0, 1)]
    arms = [limb(skin, neck, 0.36 * unit, 0.45 * wide, k * np.pi) for k in (1, 0)]
    torso = skin.cut([capsule(hip, neck, wide, wide)], swing(rng, 0.1), hip)
    top = neck + np.array([0.3 * lean, -0.13 * unit])
    head = skin.cut([top + round_shape(rng, 0.085 * unit, 0.9)], swing(rng, 0.25), neck)
    return [*legs[0], *arms[0], torso, *legs[1], head, *arms[1]]


def beast(skin: Skin, length: float) -> list[Part]:
    """Draw something on four legs, with a neck, a head and a tail."""
    rng, unit = skin.rng, length
    thick = unit * rng.uniform(0.12, 0.22)
    rear = np.array([-0.26, 0.0]) * unit
    front = np.array([0.22, rng.uniform(-0.08, 0.05)]) * unit
    reach, thin = unit * rng.uniform(0.2, 0.42), 0.3 * thick
    pace = rng.uniform(0, 2 * np.pi, 4)
    legs = [
        limb(skin, at, reach, thin, phase)
        for at, phase in zip((rear, front, rear, front), pace, strict=True)
    ]
    head = front + np.array([0.2, rng.uniform(-0.28, 0.1)]) * unit
    neck = skin.cut(
        [
            capsule(front, head, 0.6 * thick, 0.35 * thick),
            head + round_shape(rng, 0.5 * thick, 0.6),
        ],
        swing(rng, 0.25),
        front,
    )
    tip = rear + np.array([-0.2, rng.uniform(-0.2, 0.2)]) * unit
    tail = skin.cut([capsule(rear, tip, 0.1 * thick, 3)], swing(rng, 0.5), rear)
    torso = skin.cut([capsule(rear, front, thick, thick)], swing(rng, 0.05), rear)
    return [*legs[0], *legs[1], tail, torso, *legs[2], *legs[3], neck]


def vehicle(skin: Skin, length: float) -> list[Part]:
    """Draw a box on wheels, or a frame on thin wheels with a rider."""
    rng, unit = skin.rng, length
    ridden = rng.random() < 0.5
    radius = unit * (rng.uniform(0.14, 0.2) if ridden else rng.uniform(0.07, 0.12))
    base, turn = 0.2 * unit, sheets.Track(0.0, rng.uniform(0.02, 0.6))
    axles = [np.array([x * unit, base]) for x in (-0.3, 0.3)]
    wheels = [
        skin.cut([ring(at, radius, rng.choice([0, 0.8]))], turn, at) for at in axles
    ]
    if not ridden:
        high = rng.uniform(0.12, 0.4)
        slope = rng.uniform(0, 0.2, 2)
        outline = [(-0.5, 0.2), (-0.5 + slope[0], 0.2 - high), (0.3, 0.2 - high)]
        outline += [(0.5 - slope[1], 0.2 - 0.5 * high), (0.5, 0.2)]
        body = skin.cut([unit * np.array(outline)], sheets.Track(), np.zeros(2))
        return [body, *wheels] if rng.random() < 0.8 else [body]
    seat, bar = np.array([-0.1, 0.02]) * unit, np.array([0.2, -0.02]) * unit
    pole = 0.02 * unit + 1
    bars = [capsule(a, b, pole, pole) for a in axles for b in (seat, bar)]
    bars.append(capsule(seat, bar, 2 * pole, 2 * pole))
    frame = skin.cut(bars, sheets.Track(), np.zeros(2))
    lift = sheets.move(np.array([-0.05, -0.12]) * unit)
    rider = [_before(lift, part) for part in figure(skin, 0.75 * unit)]
    return [*wheels, frame, *rider]


def limb(
    skin: Skin, joint: np.ndarray, length: float, width: float, phase: float
) -> list[Part]:
    """Draw two pieces below a joint; the lower one swings with the upper one's end."""
    rng = skin.rng
    knee = joint + np.array([rng.uniform(-0.1, 0.1), 0.52]) * length
    foot = joint + np.array([rng.uniform(-0.2, 0.1), 1.0]) * length
    size, rate = rng.uniform(0.0, 0.7), rng.uniform(0.1, 1.2)
    thigh = sheets.Track(rng.uniform(-0.5, 0.5), swing=size, rate=rate, phase=phase)
    shin = sheets.Track(
        rng.uniform(-0.3, 0.5), swing=0.7 * size, rate=rate, phase=phase + 1.5
    )
    upper = skin.cut([capsule(joint, knee, width, 0.8 * width)], thigh, joint)
    lower = skin.cut([capsule(knee, foot, 0.8 * width, 0.6 * width)], shin, knee)

    def hung(time: float) -> Float[np.ndarray, "3 3"]:
        hold = sheets.about(joint, sheets.spin(float(thigh.at(time))))
        return hold @ lower.pose(time)

    return [upper, Part(lower.image, hung)]


def swing(rng: np.random.Generator, most: float) -> sheets.Track:
    """Draw how a joint turns, radians."""
    size, rate = rng.uniform(0, most), rng.uniform(0.1, 1.0)
    return sheets.Track(0.0, swing=size, rate=rate, phase=rng.uniform(0, 6.28))


def round_shape(
    rng: np.random.Generator, radius: float, flat: float
) -> Float[np.ndarray, "n 2"]:
    """Draw a closed curve about the origin, smooth or jagged."""
    angle = np.linspace(0, 2 * np.pi, 72, endpoint=False)
    reach = np.ones(72)
    rough = rng.uniform(0.0, 0.35)
    for k in range(1, 7):
        reach += rough / k * rng.normal() * np.cos(k * angle + rng.uniform(0, 6.28))
    reach = np.clip(reach, 0.3, 1.8)
    curve = radius * reach[:, None] * np.stack([np.cos(angle), np.sin(angle)], -1)
    curve *= (1.0, flat) if rng.random() < 0.5 else (flat, 1.0)
    return curve


def capsule(
    a: np.ndarray, b: np.ndarray, wide_a: float, wide_b: float
) -> Float[np.ndarray, "n 2"]:
    """Return a segment's outline, `wide_*` pixels from its ends."""
    along = np.arctan2(*(b - a)[::-1])
    half = np.linspace(np.pi / 2, 3 * np.pi / 2, 12) + along
    ends = [
        centre + wide * np.stack([np.cos(angle), np.sin(angle)], axis=-1)
        for centre, wide, angle in ((a, wide_a, half), (b, wide_b, half + np.pi))
    ]
    return np.concatenate(ends)


def ring(centre: np.ndarray, radius: float, inner: float) -> Float[np.ndarray, "n 2"]:
    """Return a wheel; `inner` is the share of its radius that is empty."""
    angle = np.linspace(0, 2 * np.pi, 40)
    circle = np.stack([np.cos(angle), np.sin(angle)], axis=-1)
    if not inner:
        return centre + radius * circle
    return centre + radius * np.concatenate([circle, inner * circle[::-1]])


def _sway(
    rng: np.random.Generator, length: float
) -> Callable[[Part], Callable[[float], np.ndarray]]:
    """Draw a wave that runs through a body's sheets."""
    size, rate = rng.uniform(0.01, 0.05) * length, rng.uniform(0.1, 0.8)
    number = 2 * np.pi / (rng.uniform(0.5, 2.0) * length)

    def of_part(part: Part) -> Callable[[float], np.ndarray]:
        h, w = part.image.shape[:2]
        y = np.arange(h, dtype=np.float32)[:, None]

        def offset(time: float) -> np.ndarray:
            field = np.zeros((h, w, 2), np.float32)
            field[..., 0] = size * np.sin(number * y + rate * time)
            return field

        return offset

    return of_part


def _before(matrix: Float[np.ndarray, "3 3"], part: Part) -> Part:
    return dataclasses.replace(part, pose=lambda time: matrix @ part.pose(time))


KINDS: tuple[Callable[[Skin, float], list[Part]], ...] = (
    blob,
    joined,
    figure,
    beast,
    vehicle,
)
SHARES = (0.2, 0.2, 0.2, 0.2, 0.2)
