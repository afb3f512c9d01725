"""What a cheap camera makes of a scene: blur, noise, flicker, compression.

`render` is all a caller needs; it knows the mask too. The same seed and number
give the same bytes.
"""

import dataclasses

import cv2
import numpy as np
from jaxtyping import Bool, Float, UInt8

from imas_jax.rendered import sheets, worlds


@dataclasses.dataclass(frozen=True)
class Take:
    """A few frames of a scene around time 0.

    Attributes:
        frames: RGB by time.
        mask: What moves on its own at time 0.
    """

    frames: dict[int, UInt8[np.ndarray, "h w 3"]]
    mask: Bool[np.ndarray, "h w"]


@dataclasses.dataclass(frozen=True)
class Lens:
    """How frames differ from the light of the scene.

    Attributes:
        soft: Standard deviation of the defocus, pixels.
        shrink: Frames were stored at this share of their size and enlarged.
        noise: Standard deviation of the sensor noise, of 255.
        flicker: Standard deviation of the brightness between frames, a share.
        jpeg: Quality, 0 to 100.
    """

    soft: float
    shrink: float
    noise: float
    flicker: float
    jpeg: int


def render(
    seed: int, number: int, size: tuple[int, int], times: tuple[int, ...]
) -> Take:
    """Render the scene of a seed and number at some times.

    Args:
        seed: Of all clips.
        number: Of this clip.
        size: (h, w) of the frames.
        times: Frames before (negative) and after time 0.
    """
    rng = np.random.default_rng([seed, number])
    scene = worlds.draw_scene(rng, size)
    lens = draw_lens(rng)
    steps = 5 if scene.shutter else 1
    frames = {t: develop(rng, sheets.expose(scene, t, steps), lens) for t in times}
    return Take(frames, sheets.object_mask(scene, 0.0))


def draw_lens(rng: np.random.Generator) -> Lens:
    """Draw how good the camera is."""
    return Lens(
        soft=float(rng.uniform(0.3, 1.5)) if rng.random() < 0.4 else 0.0,
        shrink=float(rng.uniform(0.5, 0.9)) if rng.random() < 0.2 else 1.0,
        noise=float(rng.uniform(0, 5.0)),
        flicker=float(rng.uniform(0, 0.03)) if rng.random() < 0.4 else 0.0,
        jpeg=int(rng.integers(35, 95)),
    )


def develop(
    rng: np.random.Generator, light: Float[np.ndarray, "h w 3"], lens: Lens
) -> UInt8[np.ndarray, "h w 3"]:
    """Return a frame as a file would hold it."""
    h, w = light.shape[:2]
    image = light.astype(np.float32) * np.float32(
        255 * (1 + lens.flicker * rng.normal())
    )
    if lens.soft:
        image = cv2.GaussianBlur(image, (0, 0), lens.soft)
    if lens.shrink < 1:
        small = (round(w * lens.shrink), round(h * lens.shrink))
        image = cv2.resize(image, small, interpolation=cv2.INTER_AREA)
    image += lens.noise * rng.standard_normal(image.shape, np.float32)
    levels = np.clip(np.rint(image), 0, 255).astype(np.uint8)
    _, file = cv2.imencode(
        ".jpg", levels[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, lens.jpeg]
    )
    levels = cv2.cvtColor(cv2.imdecode(file, cv2.IMREAD_COLOR), cv2.COLOR_BGR2RGB)
    if lens.shrink < 1:
        levels = cv2.resize(levels, (w, h), interpolation=cv2.INTER_LINEAR)
    return levels
