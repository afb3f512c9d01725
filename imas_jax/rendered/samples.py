"""What the motion evidence learns from: observations of rendered frames, with masks.

Flow is estimated on the rendered frames as it is on filmed ones, with all its faults;
only the mask is known from how the frame was made. A rendered mask is not an
annotation: nobody looked at a video to draw it.
"""

import dataclasses
from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np
from jaxtyping import Float16, Float32, UInt8

from imas_jax.files import read_npz
from imas_jax.flow import estimators, evidence, files, motion
from imas_jax.rendered import film

FIRST, LAST = min(evidence.OFFSETS), max(evidence.OFFSETS)
# Frames of most videos, and of some smaller and squarer ones; one after the other.
SIZES = (*[(240, 428)] * 6, (240, 320), (240, 320), (160, 240), (240, 428))
# Chances of what happens to a sample on its way to the network.
UPSIDE_DOWN, NEIGHBOUR_LOST, FAR_ONES_LOST = 0.2, 0.1, 0.15


@dataclasses.dataclass(frozen=True)
class Sample:
    """One rendered frame, as the network is given it (`evidence.Observation`).

    Attributes:
        looks: See there; so are `camera` and `scales`.
        camera: See there.
        scales: See there.
        mask: Share of each grid point's pixels that move on their own, of 255.
    """

    looks: Float16[np.ndarray, "h w k"]
    camera: Float16[np.ndarray, "h w 2"]
    scales: Float32[np.ndarray, " n"]
    mask: UInt8[np.ndarray, "h w"]


VERSION = 2  # raised when the same seed renders other samples
Batch = tuple[np.ndarray, ...]  # looks, camera, scales, mask (0..1)


def make(estimator: estimators.Estimator, seed: int, number: int) -> Sample:
    """Render a clip and observe its middle frame."""
    size = SIZES[number % len(SIZES)]
    times = tuple(range(FIRST, LAST + 1))
    take = film.render(seed, number, size, times)
    small = {t: evidence.shrink(frame) for t, frame in take.frames.items()}
    ahead, behind = {}, {}
    for t in times[:-1]:
        fields = estimator(take.frames[t], take.frames[t + 1])
        there, back = (files.half_resolution(field) for field in fields)
        ahead[t] = _on_grid(there, back, size)
        behind[t + 1] = _on_grid(back, there, size)
    motions = evidence.neighbours(0, ahead, behind)
    looks = [
        None if found is None else (found, small[offset])
        for offset, found in zip(evidence.OFFSETS, motions, strict=True)
    ]
    seen = evidence.observe(small[0], looks)
    share = cv2.resize(
        take.mask.astype(np.float32),
        small[0].shape[1::-1],
        interpolation=cv2.INTER_AREA,
    )
    return Sample(
        seen.looks.astype(np.float16),
        seen.camera.astype(np.float16),
        seen.scales,
        np.rint(255 * share).astype(np.uint8),
    )


def write(path: Path, sample: Sample) -> None:
    """Write a sample, whole or not at all."""
    aside = path.with_suffix(".writing")
    with aside.open("wb") as file:
        np.savez(file, **vars(sample))
    aside.replace(path)


def read(path: Path) -> Sample:
    """Read a sample."""
    return Sample(**read_npz(path))


def batch(
    samples: Sequence[Sample], rng: np.random.Generator, crop: tuple[int, int]
) -> Batch:
    """Cut, turn and spoil samples by chance, and stack them."""
    changed = [_augmented(sample, rng, crop) for sample in samples]
    return tuple(np.stack(parts) for parts in zip(*changed, strict=True))


def _augmented(
    sample: Sample, rng: np.random.Generator, crop: tuple[int, int]
) -> Batch:
    looks, camera, mask = _window(sample, rng, crop)
    count = len(evidence.OFFSETS)
    looks = looks.reshape(*crop, count, evidence.LOOK)
    # Faster or slower, but never all below what counts as moving.
    speed = max(np.exp(rng.uniform(-0.4, 0.4)), evidence.LEAST / sample.scales.max())
    looks[..., :3] *= speed
    camera = camera * np.float32(speed)
    scales = np.maximum(sample.scales * speed, evidence.LEAST).astype(np.float32)
    for axis, chance in ((1, 0.5), (0, UPSIDE_DOWN)):
        if rng.random() < chance:
            looks, camera, mask = (
                np.flip(part, axis).copy() for part in (looks, camera, mask)
            )
            looks[..., 1 - axis] *= -1
            camera[..., 1 - axis] *= -1
    if rng.random() < 0.5:  # backwards in time
        twins = [number ^ 1 for number in range(count)]
        looks, scales, camera = looks[:, :, twins], scales[twins], -camera
        looks[..., :2] *= -1
    kept = _kept(rng, count)
    looks, scales = looks[:, :, kept], scales[kept]
    return looks.reshape(*crop, -1), camera, scales, mask


def _window(
    sample: Sample, rng: np.random.Generator, crop: tuple[int, int]
) -> tuple[np.ndarray, ...]:
    """Cut a window of random size and place, brought to the size of the crop."""
    h, w = sample.mask.shape
    step = min(np.exp(rng.uniform(*np.log((0.65, 1.35)))), h / crop[0], w / crop[1])
    x, y = rng.uniform(0, w - crop[1] * step), rng.uniform(0, h - crop[0] * step)
    place = np.array([[step, 0, x + step / 2 - 0.5], [0, step, y + step / 2 - 0.5]])
    everything = np.concatenate(
        [sample.looks, sample.camera, sample.mask[..., None] / 255],
        axis=-1,
        dtype=np.float32,
    )
    parts = [  # OpenCV takes four channels at a time
        cv2.warpAffine(
            np.ascontiguousarray(everything[..., first : first + 4]),
            place,
            crop[::-1],
            flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP,
            borderMode=cv2.BORDER_REPLICATE,
        ).reshape(*crop, -1)
        for first in range(0, everything.shape[-1], 4)
    ]
    cut, count = np.concatenate(parts, axis=-1), sample.looks.shape[-1]
    looks, camera, mask = np.split(cut, (count, count + 2), axis=-1)
    return looks, camera, mask[..., 0]


def _kept(rng: np.random.Generator, count: int) -> list[int]:
    """Draw which look stands in each place, as `evidence.observe` fills them."""
    kept = list(range(count))
    if rng.random() < FAR_ONES_LOST:
        kept = [number & 1 for number in kept]
    for first in range(0, count, 2):
        if rng.random() < NEIGHBOUR_LOST:
            kept[first : first + 2] = [kept[first + int(rng.integers(2))]] * 2
    return kept


def _on_grid(
    flow: np.ndarray, opposite: np.ndarray, size: tuple[int, int]
) -> evidence.Motion:
    homography = motion.fit_background(flow, size)
    return evidence.to_grid(flow, opposite, homography, size)
