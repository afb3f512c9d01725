"""A scene drawn by chance: a camera, a world with depth, and what moves on its own.

Made to fail as real clips do: the camera stands, shakes, pans, zooms or follows; the
ground comes closer towards the bottom; poles and bushes pass at other speeds than what
is behind them; water ripples and leaves flutter; things are slow or fast, small or
large, cast shadows, are mirrored, hidden in part, like their surroundings, or absent.
Numbers are pixels of a frame 240 high, and scale with it.
"""

import dataclasses
from collections.abc import Callable

import cv2
import numpy as np
from jaxtyping import Float

from imas_jax.rendered import bodies, sheets, textures

REFERENCE = 240  # height that numbers below are for
# Displacement in pixels, and a factor of the brightness or None, of every pixel.
Stirred = tuple[Float[np.ndarray, "h w 2"], Float[np.ndarray, "h w"] | None]
Stir = Callable[[float, np.ndarray, np.ndarray], Stirred]  # time, where it looks (x, y)


@dataclasses.dataclass(frozen=True)
class Camera:
    """What the camera does to the world, `nearness` 1 being the middle distance."""

    pan: sheets.Track
    shake: sheets.Track
    roll: sheets.Track
    zoom: sheets.Track
    centre: np.ndarray

    def view(self, time: float, nearness: float = 1.0) -> Float[np.ndarray, "3 3"]:
        """Return world (the frame at time 0) to frame coordinates."""
        turn = sheets.spin(
            float(self.roll.at(time)), float(np.exp(nearness * self.zoom.at(time)))
        )
        offset = nearness * self.pan.at(time) + self.shake.at(time)
        return sheets.move(offset) @ sheets.about(self.centre, turn)


def draw_scene(rng: np.random.Generator, size: tuple[int, int]) -> sheets.Scene:
    """Draw a scene; its objects are what `sheets.object_mask` shows.

    Args:
        rng: Source of chance.
        size: (h, w) of the frames.
    """
    unit = size[0] / REFERENCE
    count = int(rng.choice([0, 1, 2, 3, 5], p=[0.06, 0.66, 0.16, 0.06, 0.06]))
    velocity = draw_velocity(rng, unit)
    chances = [0.0, rng.uniform(0, 1), rng.uniform(0.85, 1.05)]
    follow = float(rng.choice(chances, p=[0.3, 0.25, 0.45]))
    camera = draw_camera(rng, size, -follow * velocity)
    behind = draw_standing(rng, size, camera, (0.7, 1.8), int(rng.integers(0, 4)))
    moving: list[sheets.Sheet] = []
    for number in range(count):
        if number:
            alike = rng.random() < 0.3
            velocity = (
                velocity * rng.uniform(0.7, 1.3) if alike else draw_velocity(rng, unit)
            )
        moving += draw_object(rng, size, camera, velocity, crowd=count > 2)
    hiding = int(rng.integers(1, 5)) if rng.random() < 0.35 else 0
    before = draw_standing(rng, size, camera, (1.2, 3.0), hiding)
    backdrop = draw_backdrop(rng, size, camera)
    shutter = float(rng.uniform(0.3, 1.0)) if rng.random() < 0.5 else 0.0
    return sheets.Scene(size, backdrop, (*behind, *moving, *before), shutter)


def draw_velocity(rng: np.random.Generator, unit: float) -> np.ndarray:
    """Draw a velocity, mostly sideways, from a fifth of a pixel to 20 px a frame."""
    speed = unit * np.exp(rng.uniform(np.log(0.2), np.log(20.0)))
    angle = rng.choice([0, np.pi]) + rng.normal() * 0.5
    return speed * np.array([np.cos(angle), np.sin(angle)])


def draw_camera(
    rng: np.random.Generator, size: tuple[int, int], chase: np.ndarray
) -> Camera:
    """Draw a camera; `chase` is how it follows an object, pixels a frame."""
    unit = size[0] / REFERENCE
    kind = rng.choice(["still", "hand", "pan", "free"], p=[0.25, 0.3, 0.25, 0.2])
    if kind in ("still", "hand"):
        drift = np.zeros(2)
    else:
        drift = draw_velocity(rng, unit) * rng.uniform(0.1, 0.6)
    trembling = unit * rng.uniform(0.2, 2.5) if kind in ("hand", "free") else 0.0
    tilts = kind == "free" or (kind == "hand" and rng.random() < 0.4)
    return Camera(
        sheets.Track(
            np.zeros(2), chase + drift, rng.normal(0, 0.06, 2) * (kind != "still")
        ),
        sheets.Track(
            np.zeros(2),
            swing=trembling * rng.normal(size=2),
            rate=rng.uniform(0.4, 2.5),
            phase=rng.uniform(0, 6.28),
        ),
        sheets.Track(0.0, rng.normal() * 0.008 * tilts),
        sheets.Track(0.0, rng.normal() * 0.012 * tilts),
        np.array([size[1], size[0]]) * rng.uniform(0.25, 0.75, 2),
    )


def draw_object(
    rng: np.random.Generator,
    size: tuple[int, int],
    camera: Camera,
    velocity: np.ndarray,
    crowd: bool,
) -> list[sheets.Sheet]:
    """Draw an object with its shadow and reflection, seen at time 0."""
    h, w = size
    unit = h / REFERENCE
    smallest, largest = (30.0, 140.0) if crowd else (50.0, 340.0)
    if rng.random() < 0.35:  # far away
        smallest, largest = (20.0, 70.0) if crowd else (35.0, 280.0)
    length = unit * np.exp(rng.uniform(np.log(smallest), np.log(largest)))
    parts = bodies.draw_body(rng, length)
    place = np.array([w, h]) * np.clip(rng.normal(0.5, 0.2, 2), 0.05, 0.95)
    path = sheets.Track(
        place,
        velocity,
        rng.normal(0, 0.05, 2) * np.abs(velocity),
        swing=unit * rng.uniform(0, 3.0) * rng.normal(size=2),
        rate=rng.uniform(0.1, 0.9),
        phase=rng.uniform(0, 6.28),
    )
    turn = sheets.Track(rng.normal() * 0.2, rng.normal() * 0.03 * (rng.random() < 0.4))
    growth = sheets.Track(0.0, rng.normal() * 0.012)

    def body(time: float) -> Float[np.ndarray, "3 3"]:
        scale = float(np.exp(growth.at(time)))
        own = sheets.move(path.at(time)) @ sheets.spin(float(turn.at(time)), scale)
        return camera.view(time) @ own

    def posed(part: bodies.Part, between: Float[np.ndarray, "3 3"]) -> sheets.Pose:
        return lambda time: body(time) @ between @ part.pose(time)

    own = [
        sheets.Sheet(p.image, posed(p, np.eye(3)), "object", p.wobble) for p in parts
    ]
    lights = []
    if rng.random() < 0.5:
        change, light = _shadow(rng, length)
        lights = [
            sheets.Sheet(light(p.image), posed(p, change), "light", p.wobble)
            for p in parts
        ]
    return [*lights, *own]


def draw_standing(
    rng: np.random.Generator,
    size: tuple[int, int],
    camera: Camera,
    nearness: tuple[float, float],
    count: int,
) -> list[sheets.Sheet]:
    """Draw things that stand in the world: they move as the camera makes them."""
    h, w = size
    found = []
    for near in np.sort(rng.uniform(*nearness, count)):
        skin = bodies.Skin(rng, textures.draw_texture(rng, (64, 64)), alike=0.3)
        place = np.array([w, h]) * rng.uniform(0, 1, 2)
        if rng.random() < 0.4:  # a trunk or a pole, through the whole height
            wide = h * rng.uniform(0.01, 0.06)
            ends = place + np.array([[rng.normal() * 0.1, -1.2], [0, 1.2]]) * h
            shape = bodies.capsule(ends[0], ends[1], wide, wide)
        else:
            radius = h * np.exp(rng.uniform(np.log(0.05), np.log(0.3)))
            shape = place + bodies.round_shape(rng, radius, rng.uniform(0.4, 1.0))
        part = skin.cut([shape], sheets.Track(), place)

        def pose(
            time: float, part: bodies.Part = part, near: float = float(near)
        ) -> Float[np.ndarray, "3 3"]:
            return camera.view(time, near) @ part.pose(time)

        found.append(sheets.Sheet(part.image, pose, "world"))
    return found


def draw_backdrop(
    rng: np.random.Generator, size: tuple[int, int], camera: Camera
) -> Callable[[float], Float[np.ndarray, "h w 3"]]:
    """Draw what is behind everything: one or two surfaces, with depth and ripples."""
    h, w = size
    image = textures.draw_texture(rng, size)
    hilly = textures.octaves(rng, size, 4, 1.2)[h // 2] - 0.5
    line = (rng.uniform(0.2, 0.8) + rng.uniform(0, 0.3) * hilly) * h
    below = np.clip(np.arange(h, dtype=np.float32)[:, None] - line[None], 0, 1)
    if rng.random() < 0.6:
        ground = textures.draw_texture(rng, size)
        image = image * (1 - below[..., None]) + ground * below[..., None]
    nearness = _nearness(rng, size, line)
    if rng.random() < 0.2:
        below = np.ones_like(below)  # nothing but water, should there be any
    stir = _stir(rng, size, below, line)
    x, y = np.meshgrid(np.arange(w, dtype=np.float32), np.arange(h, dtype=np.float32))

    def backdrop(time: float) -> Float[np.ndarray, "h w 3"]:
        back = np.linalg.inv(camera.view(time)).astype(np.float32)
        there_x = back[0, 0] * x + back[0, 1] * y + back[0, 2]
        there_y = back[1, 0] * x + back[1, 1] * y + back[1, 2]
        there_x, there_y = x + nearness * (there_x - x), y + nearness * (there_y - y)
        shine = None
        if stir is not None:
            offset, shine = stir(time, there_x, there_y)
            there_x, there_y = there_x + offset[..., 0], there_y + offset[..., 1]
        seen = cv2.remap(
            image, there_x, there_y, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REFLECT
        )
        return seen if shine is None else seen * shine[..., None]

    return backdrop


def _nearness(
    rng: np.random.Generator, size: tuple[int, int], line: np.ndarray
) -> Float[np.ndarray, "h w"]:
    """Draw how much each pixel of the backdrop takes of the camera's motion."""
    h = size[0]
    near = np.ones(size, np.float32)
    if rng.random() < 0.5:  # the ground comes closer towards the bottom
        depth = np.clip((np.arange(h)[:, None] - line[None]) / h, 0, None)
        near += rng.uniform(0.2, 1.5) * depth.astype(np.float32)
    if rng.random() < 0.4:  # hills and hollows
        near += rng.uniform(0.1, 0.6) * (textures.octaves(rng, size, 3, 1.5) - 0.5)
    return near


def _stir(
    rng: np.random.Generator, size: tuple[int, int], below: np.ndarray, line: np.ndarray
) -> Stir | None:
    """Draw leaves in the wind, or water below the line; None for nothing that stirs."""
    chance = rng.random()
    if chance > 0.45:
        return None
    if chance > 0.27:
        return _leaves(rng, size, size[0] / REFERENCE)
    if rng.random() < 0.4:
        return draw_ripples(rng, size, below)
    return draw_waves(rng, size, below, float(line.min()))


def draw_ripples(
    rng: np.random.Generator, size: tuple[int, int], below: np.ndarray
) -> Stir:
    """Draw water seen from above: waves alike everywhere, and glints."""
    y, x = np.mgrid[: size[0], : size[1]].astype(np.float32)
    unit = size[0] / REFERENCE
    waves = []
    for _ in range(3):
        length = unit * rng.uniform(8, 50)
        angle = np.pi / 2 + rng.normal() * 0.4
        phase = (x * np.cos(angle) + y * np.sin(angle)) * np.float32(6.283 / length)
        high = unit * np.exp(rng.uniform(np.log(0.1), np.log(2.5)))
        waves.append((phase, rng.uniform(0.2, 2.0), high))
    glint = _glint(rng, size, below)

    def stir(time: float, x: np.ndarray, y: np.ndarray) -> Stirred:
        del x, y  # like leaves: not where the camera looks
        total = sum(a * np.sin(p + np.float32(rate * time)) for p, rate, a in waves)
        offset = np.stack([0.6 * total * below, total * below], -1)
        return offset.astype(np.float32), 1 + glint(time)

    return stir


def draw_waves(
    rng: np.random.Generator, size: tuple[int, int], below: np.ndarray, horizon: float
) -> Stir:
    """Draw waves on a plane that comes closer towards the bottom, and their light.

    What is mirrored shifts with the slope of the waves, and slopes towards the sky are
    brighter. Long waves run faster, as on deep water; those too short to be seen are
    not drawn.
    """
    unit = size[0] / REFERENCE
    horizon -= unit * rng.uniform(5, 120)  # of the plane, above where water begins
    nearest = size[0] - horizon
    steep = rng.uniform(0.3, 1.0)
    flat = rng.uniform(0.3, 0.8)  # how low the camera looks over it
    wind = rng.uniform(0, 2 * np.pi)
    waves = []
    for _ in range(int(rng.integers(5, 13))):
        length = unit * np.exp(rng.uniform(np.log(6), np.log(90)))  # at the bottom
        angle = wind + rng.normal() * 0.9
        number = 2 * np.pi / length
        # Radians a frame: a wave of 30 px passes in about 25 frames.
        rate = rng.uniform(0.7, 1.3) * 0.25 * np.sqrt(30 * unit / length)
        waves.append(
            (number * np.cos(angle), number * np.sin(angle), rate, rng.uniform(0, 6.28))
        )
    shift = unit * np.exp(rng.uniform(np.log(0.3), np.log(8.0)))
    strength = rng.uniform(0.0, 0.5)
    glint = _glint(rng, size, below)

    def stir(time: float, x: np.ndarray, y: np.ndarray) -> Stirred:
        depth = nearest / np.maximum(y - horizon, 2)  # 1 at the bottom, then more
        across = depth * (x - size[1] / 2)
        along = depth * nearest / flat
        slope = np.zeros((*x.shape, 2), np.float32)
        for kx, ky, rate, phase in waves:
            # Radians a pixel of the frame: waves finer than that are not seen.
            fine = depth * (abs(kx) + abs(ky) * depth / flat)
            seen = np.clip(1.3 - fine, 0, 1) * steep / len(waves) ** 0.5
            wave = seen * np.cos(
                (kx * across + ky * along + (rate * time + phase)).astype(np.float32)
            )
            total = np.hypot(kx, ky)
            slope[..., 0] += kx / total * wave
            slope[..., 1] += ky / total * wave
        slope *= below[..., None].astype(np.float32)
        light = 1 + np.float32(strength) * slope.sum(axis=-1) + glint(time)
        return np.float32(shift) * slope, light.astype(np.float32)

    return stir


def _glint(
    rng: np.random.Generator, size: tuple[int, int], below: np.ndarray
) -> Callable[[float], Float[np.ndarray, "h w"]]:
    """Draw spots of light that come and go on water: a change of its brightness."""
    phases = 20 * np.stack([textures.octaves(rng, size, 5, 0.7) for _ in "ab"])
    rates = rng.uniform(0.2, 2.0, 2)
    strength = rng.uniform(0.1, 0.8) if rng.random() < 0.6 else 0.0

    def glint(time: float) -> Float[np.ndarray, "h w"]:
        first, second = (
            np.sin(p + np.float32(r * time)) for p, r in zip(phases, rates, strict=True)
        )
        return np.float32(strength) * first * second * below.astype(np.float32)

    return glint


def _leaves(rng: np.random.Generator, size: tuple[int, int], unit: float) -> Stir:
    where = textures.octaves(rng, size, 3, 1.0) > rng.uniform(0.3, 0.8)
    weight = cv2.GaussianBlur(where.astype(np.float32), (0, 0), 4 * unit)
    grain = [textures.octaves(rng, size, int(rng.integers(3, 6)), 0.5) for _ in "xyxy"]
    fields = 4 * (np.stack(grain, -1) - 0.5) * weight[..., None]
    strength, rate = unit * rng.uniform(0.2, 1.5), rng.uniform(0.3, 1.5)

    def flutter(time: float, x: np.ndarray, y: np.ndarray) -> Stirred:
        del x, y  # the wind does not ask where the camera looks
        now, then = np.sin(rate * time), np.cos(rate * time)
        field = fields[..., :2] * np.float32(now) + fields[..., 2:] * np.float32(then)
        return np.float32(strength) * field, None

    return flutter


def _shadow(
    rng: np.random.Generator, length: float
) -> tuple[Float[np.ndarray, "3 3"], Callable[[np.ndarray], np.ndarray]]:
    """Draw a shadow or a reflection: a change of the body, and of its sheets."""
    foot, strength = 0.45 * length, rng.uniform(0.2, 0.6)
    mirrored = rng.random() < 0.5
    flat = np.eye(3)
    flat[1, 1] = -rng.uniform(0.7, 1.0) if mirrored else rng.uniform(-0.6, 0.3)
    flat[0, 1] = 0.0 if mirrored else rng.normal() * 0.6
    change = sheets.about(np.array([0.0, foot]), flat)

    def light(image: np.ndarray) -> np.ndarray:
        soft = cv2.GaussianBlur(image, (0, 0), 1.5) * np.float32(strength)
        if not mirrored:
            soft[..., :3] = 0
        return soft

    return change, light
