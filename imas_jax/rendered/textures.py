"""What surfaces of rendered clips look like: photographs and procedural textures.

The photographs ship inside scikit-image and are free of rights by its own statements
(`skimage/data/_fetchers.py`). Those that are objects of the demo (`demo/cutouts.py`:
astronaut, chelsea, coffee) are left out, so that the demo stays unseen.
Colours are RGB in [0, 1], float32.
"""

import functools
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import skimage.data
from jaxtyping import Float

PHOTOGRAPHS = (
    "brick.png",
    "camera.png",
    "cell.png",
    "coins.png",
    "grass.png",
    "gravel.png",
    "hubble_deep_field.jpg",
    "ihc.png",
    "retina.jpg",
    "rocket.jpg",
)


def draw_texture(
    rng: np.random.Generator, size: tuple[int, int]
) -> Float[np.ndarray, "h w 3"]:
    """Draw any texture: colours, contrast and kind are left to chance."""
    kind = KINDS[rng.choice(len(KINDS), p=SHARES)]
    image = kind(rng, size)
    if rng.random() < 0.3:  # two surfaces that meet in a soft, irregular border
        other = KINDS[rng.choice(len(KINDS), p=SHARES)](rng, size)
        weight = np.clip(6 * (octaves(rng, size, 3, 1.5)[..., None] - 0.5) + 0.5, 0, 1)
        image = image * weight + other * (1 - weight)
    grey = image.mean(axis=-1, keepdims=True)
    image = grey + (image - grey) * rng.uniform(0, 1)  # few things are as gaudy
    contrast = rng.uniform(0.25, 1.1)
    mean = image.mean(axis=(0, 1))
    shifted = mean + rng.uniform(-0.2, 0.2) + rng.uniform(-0.08, 0.08, 3)
    image = (image - mean) * contrast + np.clip(shifted, 0.1, 0.9)
    return np.clip(image, 0, 1).astype(np.float32)


def photograph(
    rng: np.random.Generator, size: tuple[int, int]
) -> Float[np.ndarray, "h w 3"]:
    """Cut a random window, mirrored and tinted, out of a photograph."""
    photo = _read(str(rng.choice(PHOTOGRAPHS)))
    aspect = size[0] / size[1]
    h, w = photo.shape[:2]
    largest = min(h, w * aspect)
    window_h = max(largest * rng.uniform(0.35, 1.0), 16)
    window_w = window_h / aspect
    y, x = rng.uniform(0, h - window_h), rng.uniform(0, max(w - window_w, 1e-3))
    window = photo[int(y) : int(y + window_h) + 1, int(x) : int(x + window_w) + 1]
    if rng.random() < 0.5:
        window = window[:, ::-1]
    image = cv2.resize(window, size[::-1], interpolation=cv2.INTER_AREA)
    return np.clip(image * rng.uniform(0.75, 1.25, 3).astype(np.float32), 0, 1)


def clouds(
    rng: np.random.Generator, size: tuple[int, int]
) -> Float[np.ndarray, "h w 3"]:
    """Mix two or three colours by noise of all scales, from fog to gravel."""
    steepness = rng.uniform(0.6, 2.2)
    first, second, third = rng.uniform(0, 1, (3, 3)).astype(np.float32)
    image = np.multiply.outer(octaves(rng, size, 7, steepness), second - first) + first
    if rng.random() < 0.5:
        image += np.multiply.outer(octaves(rng, size, 7, steepness) - 0.5, third)
    return image


def leaves(
    rng: np.random.Generator, size: tuple[int, int]
) -> Float[np.ndarray, "h w 3"]:
    """Pile up shapes of all sizes ("dead leaves"): edges as photographs have them."""
    h, w = size
    palette = rng.uniform(0, 1, (rng.integers(3, 12), 3))
    image = np.empty((h, w, 3), np.float32)
    image[:] = palette[0]
    count = int(rng.integers(40, 400))
    radii = np.sort(rng.uniform(0.02, 1.0, count) ** -1.0)[::-1]
    radii *= rng.uniform(1.0, 5.0) * min(h, w) / 240
    round_ones = rng.random() < 0.5
    for radius in np.minimum(radii, 0.4 * min(h, w)):
        centre = rng.uniform((0, 0), (w, h))
        angles = np.sort(rng.uniform(0, 2 * np.pi, 24 if round_ones else 5))
        reach = radius * (rng.uniform(0.5, 1.2, 2) if round_ones else 1.0)
        corners = centre + reach * np.stack([np.cos(angles), np.sin(angles)], -1)
        colour = palette[rng.integers(len(palette))] + rng.uniform(-0.1, 0.1, 3)
        points = np.round(corners * 16).astype(np.int32)
        cv2.fillPoly(image, [points], tuple(colour), cv2.LINE_AA, 4)
    return image + 0.15 * (octaves(rng, size, 7, 0.8)[..., None] - 0.5)


def waves(
    rng: np.random.Generator, size: tuple[int, int]
) -> Float[np.ndarray, "h w 3"]:
    """Draw stripes, checks or ripples, bent by noise."""
    y, x = np.mgrid[: size[0], : size[1]].astype(np.float32)
    bend = 20 * rng.uniform(0, 1) * octaves(rng, size, 4, 1.5)
    total = np.zeros(size, np.float32)
    for _ in range(rng.integers(1, 4)):
        angle, length = rng.uniform(0, np.pi), rng.uniform(5, 60)
        total += np.sin((x * np.cos(angle) + y * np.sin(angle) + bend) * 6.283 / length)
    total = np.tanh(total * rng.uniform(0.5, 4)) / 2 + 0.5
    first, second = rng.uniform(0, 1, (2, 3)).astype(np.float32)
    grain = 0.2 * (octaves(rng, size, 7, 0.8)[..., None] - 0.5)
    return np.multiply.outer(total, second - first) + first + grain


def smooth(
    rng: np.random.Generator, size: tuple[int, int]
) -> Float[np.ndarray, "h w 3"]:
    """Draw sky, snow, paint: hardly anything for an optical flow to hold on to."""
    first, second = rng.uniform(0, 1, (2, 3)).astype(np.float32)
    image = np.multiply.outer(octaves(rng, size, 2, 1.5), 0.4 * (second - first))
    return image + first + 0.03 * (octaves(rng, size, 7, 0.6)[..., None] - 0.5)


def octaves(
    rng: np.random.Generator, size: tuple[int, int], count: int, steepness: float
) -> Float[np.ndarray, "h w"]:
    """Sum noise of ever finer grain, whose amplitude falls by 2^-steepness an octave.

    Returns:
        Mean 0.5, standard deviation 0.25, cut to [0, 1].
    """
    h, w = size
    total = np.zeros(size, np.float32)
    for octave in range(count):
        cells = 2 << octave
        grid = rng.standard_normal((cells + 2, cells * w // h + 2)).astype(np.float32)
        fine = cv2.resize(grid, (w, h), interpolation=cv2.INTER_CUBIC)
        total += fine * np.float32(2 ** (-steepness * octave))
    total -= total.mean()
    return np.clip(0.25 * total / max(float(total.std()), 1e-6) + 0.5, 0, 1)


KINDS: tuple[
    Callable[[np.random.Generator, tuple[int, int]], Float[np.ndarray, "h w 3"]], ...
] = (
    photograph,
    leaves,
    clouds,
    waves,
    smooth,
)
SHARES = (0.34, 0.26, 0.2, 0.06, 0.14)


@functools.cache
def _read(name: str) -> Float[np.ndarray, "h w 3"]:
    path = Path(skimage.data.__file__).parent / name
    image = cv2.imread(str(path), cv2.IMREAD_COLOR)
    return cv2.cvtColor(image, cv2.COLOR_BGR2RGB).astype(np.float32) / 255
