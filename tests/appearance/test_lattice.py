"""The compiled CRF: exact beside pydensecrf, near the true Gaussian sums, cached."""

import dataclasses
import itertools
import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import cv2
import numpy as np
import pytest

from imas_jax.appearance import crf, lattice
from imas_jax.errors import UserError

KERNELS = [lattice.Kernel(3.0, 2.0), lattice.Kernel(5.0, 10.0, 12.0)]


def scene(size: tuple[int, int], seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Return a noisy picture of blobs and a soft mask that nearly fits them."""
    rng = np.random.default_rng(seed)

    def smooth(sigma: float) -> np.ndarray:
        noise = cv2.GaussianBlur(rng.normal(size=size), (0, 0), sigma)
        return noise / noise.std()

    blobs = smooth(max(size) / 10)
    colours = np.stack([128 + 40 * blobs * s for s in (1.0, -0.7, 0.4)], axis=-1)
    image = np.clip(colours + 4 * rng.normal(size=(*size, 3)), 0, 255)
    mask = 1 / (1 + np.exp(-3 * (blobs + 0.5 * smooth(max(size) / 20))))
    return image.astype(np.uint8), mask.astype(np.float32)


def iou(a: np.ndarray, b: np.ndarray) -> float:
    return float((a & b).sum() / (a | b).sum())


def assert_same_as_pydensecrf(image: np.ndarray, mask: np.ndarray, preset: str) -> None:
    every = dataclasses.replace(crf.get_preset(preset), tolerance=0.0)
    ours = crf.refine(image, mask, every)
    theirs = crf.refine(image, mask, every, solver="pydensecrf")
    assert np.abs(ours.probability - theirs.probability).max() < 2e-3
    assert iou(ours.mask, theirs.mask) >= 0.9995


# Sizes: a block and a bit, rows that are no multiple of anything, and so many
# vertices that the table grows.
@pytest.mark.parametrize("size", [(16, 17), (61, 83)])
@pytest.mark.parametrize("preset", list(crf.PRESETS))
def test_masks_are_pydensecrfs(preset, size):
    pytest.importorskip("pydensecrf")
    assert_same_as_pydensecrf(*scene(size), preset)


def test_noise_in_which_no_two_pixels_are_alike_is_filtered_the_same():
    pytest.importorskip("pydensecrf")
    image = np.random.default_rng(0).integers(0, 256, (64, 64, 3)).astype(np.uint8)
    assert_same_as_pydensecrf(image, scene((64, 64))[1], "authors_target")


@pytest.mark.data
@pytest.mark.parametrize("preset", list(crf.PRESETS))
def test_masks_of_davis_frames_are_pydensecrfs(preset, shared):
    pytest.importorskip("pydensecrf")
    root = shared / "data/DAVIS-240p"
    for folder in sorted((root / "Annotations/240p").iterdir())[::10]:
        truth = sorted(folder.glob("*.png"))[0]
        frame = root / f"JPEGImages/240p/{folder.name}/{truth.stem}.jpg"
        image = cv2.resize(cv2.imread(str(frame))[..., ::-1], (175, 98))
        mask = cv2.resize(cv2.imread(str(truth), cv2.IMREAD_GRAYSCALE), (175, 98))
        soft = cv2.GaussianBlur(np.roll(mask, 4) / np.float32(255), (0, 0), 4)
        assert_same_as_pydensecrf(image, np.clip(soft, 0, 1), preset)


def test_swapping_labels_swaps_probabilities():
    image, mask = scene((40, 50))
    unary = np.log(mask / (1 - mask))
    found = lattice.mean_field(unary, image, KERNELS, 10)
    swapped = lattice.mean_field(-unary, image, KERNELS, 10)
    np.testing.assert_allclose(swapped, 1 - found, rtol=0, atol=1e-7)


def test_a_mask_that_says_nothing_stays_undecided():
    image, _ = scene((40, 50))
    assert (lattice.mean_field(np.zeros((40, 50)), image, KERNELS, 10) == 0.5).all()


@pytest.mark.parametrize("axis", [0, 1])
def test_a_mirrored_picture_gets_nearly_the_mirrored_mask(axis):
    # Not exactly: the lattice does not mirror with the picture, so every sum over
    # pixels is approximated otherwise.
    image, mask = scene((96, 128))
    plain = crf.refine(image, mask, "authors_target")
    mirrored = crf.refine(np.flip(image, axis), np.flip(mask, axis), "authors_target")
    difference = np.abs(np.flip(mirrored.probability, axis) - plain.probability)
    assert difference.mean() < 3e-3  # measured: 1.3e-3
    assert iou(np.flip(mirrored.mask, axis), plain.mask) > 0.995  # measured: 0.998


def gaussian_sums(features: np.ndarray, values: np.ndarray) -> np.ndarray:
    """Sum a Gaussian of feature distance over all pairs, symmetrically normalised."""
    squared = np.square(features[:, None] - features[None]).sum(axis=-1)
    kernel = np.exp(-squared / 2)
    norm = 1 / np.sqrt(kernel.sum(axis=1))
    return norm * (kernel @ (norm * values))


@pytest.mark.parametrize("kernels", [KERNELS[:1], KERNELS[1:], KERNELS])
def test_one_update_is_near_the_true_gaussian_sums(kernels):
    size = (14, 18)
    image, mask = scene(size)
    unary = np.log(mask.astype(np.float64) / (1 - mask)).ravel()
    rows, columns = np.mgrid[: size[0], : size[1]].reshape(2, -1).astype(np.float64)
    spin, logit = np.tanh(unary / 2), unary.copy()
    for kernel in kernels:
        features = [columns / kernel.sxy, rows / kernel.sxy]
        if kernel.srgb:
            features += list(image.reshape(-1, 3).T / kernel.srgb)
        logit += kernel.weight * gaussian_sums(np.stack(features, axis=-1), spin)
    want = 1 / (1 + np.exp(-logit.reshape(size)))
    got = lattice.mean_field(unary.reshape(size), image, kernels, 1)
    error = np.abs(got - want)
    # Measured over such scenes: mean 0.0045, greatest 0.066, where the update itself
    # moves probabilities by 0.1 on average.
    assert error.mean() < 0.006
    assert error.max() < 0.08


def test_a_tolerance_stops_where_no_probability_changes_more():
    image, mask = scene((40, 50))
    unary = np.log(mask / (1 - mask))
    runs = [lattice.mean_field(unary, image, KERNELS, n) for n in range(1, 30)]
    changes = [np.abs(b - a).max() for a, b in itertools.pairwise(runs)]
    tolerance = 0.05
    first = next(i for i, change in enumerate(changes) if change <= tolerance)
    assert 0 < first < len(changes) - 1  # it is met on the way
    got = lattice.mean_field(unary, image, KERNELS, 29, tolerance)
    np.testing.assert_array_equal(got, runs[first + 1])


def test_colours_finer_than_keys_can_number_are_refused():
    image, mask = scene((40, 50))
    image[0, 0], image[0, 1] = 0, 255
    with pytest.raises(UserError, match="raise bilateral_srgb"):
        crf.refine(image, mask, "authors_target:bilateral_srgb=0.01")


def test_the_finest_colours_keys_can_number_are_right():
    pytest.importorskip("pydensecrf")
    image, mask = scene((40, 50))
    image[0, 0], image[0, 1] = 0, 255
    assert_same_as_pydensecrf(image, mask, "authors_target:bilateral_srgb=0.2")
    with pytest.raises(UserError, match="raise bilateral_srgb"):
        crf.refine(image, mask, "authors_target:bilateral_srgb=0.1")


def test_threads_find_what_one_thread_finds():
    scenes = [scene((40, 50), seed) for seed in range(8)]

    def solve(one: tuple[np.ndarray, np.ndarray]) -> np.ndarray:
        return crf.refine(*one, "gwm").probability

    with ThreadPoolExecutor(4) as pool:
        threaded = list(pool.map(solve, scenes))
    np.testing.assert_array_equal(threaded, [solve(one) for one in scenes])


# Compiles the smallest function in a process of its own; prints how many came from the
# disk.
COMPILE = """
from imas_jax.appearance import lattice
lattice._empty_table(8)
print(sum(lattice._empty_table.stats.cache_hits.values()))
"""


def compile_apart(**environment: str) -> str:
    done = subprocess.run(
        [sys.executable, "-c", COMPILE],
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        check=True,
    )
    return done.stdout.strip()


def test_compiled_code_is_kept_where_the_environment_says(tmp_path):
    assert compile_apart(NUMBA_CACHE_DIR=str(tmp_path)) == "0"
    assert compile_apart(NUMBA_CACHE_DIR=str(tmp_path)) == "1"


def test_an_installation_with_no_place_for_a_cache_still_works(tmp_path):
    # A file is no folder, not even for root; only the user's folder is tried.
    (tmp_path / "file").touch()
    locators = "UserWideCacheLocator"
    home = {key: str(tmp_path / "file") for key in ("HOME", "XDG_CACHE_HOME")}
    assert compile_apart(NUMBA_CACHE_LOCATOR_CLASSES=locators, **home) == "0"


def test_a_read_only_installation_keeps_code_in_the_users_folder(tmp_path):
    locators = "UserWideCacheLocator"  # what numba takes when the source's is closed
    home = {key: str(tmp_path) for key in ("HOME", "XDG_CACHE_HOME")}
    assert compile_apart(NUMBA_CACHE_LOCATOR_CLASSES=locators, **home) == "0"
    assert compile_apart(NUMBA_CACHE_LOCATOR_CLASSES=locators, **home) == "1"
