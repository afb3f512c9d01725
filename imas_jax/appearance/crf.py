"""Fully connected CRF, paper Sec. 3.3, equation 7: (image, soft mask, preset) -> mask.

A preset says how a soft mask becomes a unary energy and which kernels couple pixels;
`mean_field` is the only function that knows the solvers. "lattice" is this project's
own (appearance/lattice.py); "pydensecrf" is the reference it is held against, the
library of the authors, and may be missing. Worker processes import this module: it must
never import JAX.
"""

import collections
import concurrent.futures
import dataclasses
import importlib.util
import multiprocessing
import os
import signal
import threading
from collections.abc import Iterable, Iterator
from typing import Literal, get_args

import numpy as np
from jaxtyping import Bool, Float, UInt8

from imas_jax.appearance import presets
from imas_jax.errors import UserError

UnaryKind = Literal["stretched", "probability", "softmax"]
Solver = Literal["lattice", "pydensecrf"]

# Unary probabilities stay this far from 0 and 1 (RCF).
_MARGIN = 1e-6


@dataclasses.dataclass(frozen=True)
class CrfPreset:
    """Every number of one CRF.

    Attributes:
        unary: How a soft mask m becomes a foreground probability. "stretched" (RCF):
            m / `stretch`, cut at 1, in 256 levels, divided by its maximum;
            "probability": m itself; "softmax" (TokenCut): softmax over (1 - m, m).
        stretch: Soft-mask value that counts as certain, with unary "stretched".
        blur: Sigma of a Gaussian over the stretched mask, pixels; below 0.125 it
            reaches no neighbour and does nothing.
        bilateral_sxy: Appearance kernel's reach, pixels at `short_side`.
        bilateral_srgb: Appearance kernel's reach in colour, levels of 0..255.
        bilateral_weight: Appearance kernel's weight; 0 leaves it out.
        gaussian_sxy: Smoothness kernel's reach, pixels at `short_side`.
        gaussian_weight: Smoothness kernel's weight; 0 leaves it out.
        iterations: Mean-field updates, at most.
        tolerance: Stop after an update that changes no probability by more; 0 makes
            them all. Solver "pydensecrf" always does.
        short_side: Image short side that both `sxy` belong to, pixels; they scale
            with the image's. 0 takes them as they are.
    """

    unary: UnaryKind = "stretched"
    stretch: float = 0.7
    blur: float = 0.0
    bilateral_sxy: float = 60.0
    bilateral_srgb: float = 5.0
    bilateral_weight: float = 5.0
    gaussian_sxy: float = 3.0
    gaussian_weight: float = 0.0
    iterations: int = 50
    tolerance: float = 0.0
    short_side: int = 480


PRESETS = {
    # RCF, stage-2 targets and post-processing: no smoothness kernel.
    "authors_target": CrfPreset(),
    "authors_post": CrfPreset(stretch=0.8, blur=0.1),
    # Guess What Moves and LOCATE.
    "gwm": CrfPreset(
        unary="probability",
        bilateral_sxy=67.0,
        bilateral_srgb=3.0,
        bilateral_weight=4.0,
        gaussian_sxy=1.0,
        gaussian_weight=3.0,
        iterations=10,
    ),
    "tokencut": CrfPreset(
        unary="softmax",
        bilateral_sxy=50.0,
        bilateral_srgb=5.0,
        bilateral_weight=10.0,
        gaussian_sxy=3.0,
        gaussian_weight=7.0,
        iterations=10,
    ),
    # Ours: RCF's appearance kernel over TokenCut's weak unary term, so that appearance
    # may overrule the halo that optical flow leaves around objects. RCF's own unary is
    # certain wherever a mask is above 0.7 and holds on to the halo. No tolerance: ten
    # updates are far from converged, so stopping earlier changes labels.
    "weak_unary": CrfPreset(unary="softmax", iterations=10),
    # Paper Sec. 3.3 names both kernels but no numbers; ours: RCF's appearance kernel
    # with the smoothness kernel of the CRF's own authors (reach 3, weight 3). The
    # tolerance is the largest measured that keeps labels (benchmarks/results/crf.md).
    "paper": CrfPreset(gaussian_weight=3.0, tolerance=0.02),
}


@dataclasses.dataclass(frozen=True)
class CrfResult:
    """A refined mask.

    Attributes:
        mask: Pixels where the foreground is the likelier label.
        probability: Mean-field foreground probability, in [0, 1].
    """

    mask: Bool[np.ndarray, "h w"]
    probability: Float[np.ndarray, "h w"]


def get_preset(text: str) -> CrfPreset:
    """Read a preset: a name, or a name and the numbers that differ.

    Args:
        text: E.g. "gwm" or "authors_target:iterations=5,bilateral_srgb=7".

    Raises:
        UserError: If the name, a field or a number is not known.
    """
    return _checked(presets.read(text, PRESETS, "CRF preset"))


def refine(
    image: UInt8[np.ndarray, "h w 3"],
    soft_mask: Float[np.ndarray, "h w"],
    preset: CrfPreset | str,
    solver: Solver = "lattice",
) -> CrfResult:
    """Align a soft mask with the edges of its image (equation 7).

    A mask that says the same of every pixel (empty, full, any constant) has no shape
    to refine: it comes back as it is, without a solver run.

    Args:
        image: RGB, 0..255.
        soft_mask: Foreground probability in [0, 1], of the image's size.
        preset: A `CrfPreset` or what `get_preset` reads.
        solver: What computes the mean field.

    Raises:
        UserError: If sizes differ, the mask is not finite or not in [0, 1], the solver
            is not there, or colours are too fine for it.
    """
    if isinstance(preset, str):
        preset = get_preset(preset)
    check_solver(solver)
    _check(image, soft_mask)
    return _solve(image, soft_mask, preset, solver)


def refine_many(
    pairs: Iterable[tuple[np.ndarray, np.ndarray]],
    preset: CrfPreset | str,
    workers: int = 0,
    solver: Solver = "lattice",
) -> Iterator[CrfResult]:
    """Refine a stream of (image, soft mask) pairs in order, over several cores.

    Pairs are drawn lazily, a few ahead of the results, so a whole dataset fits.

    Args:
        pairs: As `refine` takes them; sizes may vary.
        preset: A `CrfPreset` or what `get_preset` reads.
        workers: Threads, or processes of solver "pydensecrf"; 0 is one a core this
            process may use, 1 runs here.
        solver: What computes the mean field.

    Yields:
        One result a pair.

    Raises:
        UserError: As `refine` does.
    """
    if isinstance(preset, str):
        preset = get_preset(preset)
    check_solver(solver)
    workers = workers or usable_cores()
    if workers == 1:
        for image, soft_mask in pairs:
            yield refine(image, soft_mask, preset, solver)
        return
    pool = _pool(workers, solver)
    waiting: collections.deque[concurrent.futures.Future[CrfResult]] = (
        collections.deque()
    )
    try:
        for image, soft_mask in pairs:
            _check(image, soft_mask)
            waiting.append(pool.submit(_solve, image, soft_mask, preset, solver))
            if len(waiting) > 4 * workers:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    finally:
        pool.shutdown(cancel_futures=True)


def check_solver(solver: str) -> None:
    """Refuse a solver that is not known, or not installed.

    Raises:
        UserError: With what is there.
    """
    if solver not in get_args(Solver):
        raise UserError(
            f"crf.solver = {solver!r}",
            " or ".join(get_args(Solver)),
            "correct the field",
        )
    if solver == "pydensecrf" and importlib.util.find_spec("pydensecrf") is None:
        raise UserError(
            "crf.solver = 'pydensecrf', but pydensecrf is not installed",
            "pydensecrf2, which builds on Python below 3.13 with g++",
            "set --config.crf.solver=lattice (the same masks), or use such a Python",
        )


def usable_cores() -> int:
    """Count the cores this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def foreground_probability(
    soft_mask: Float[np.ndarray, "h w"], preset: CrfPreset
) -> Float[np.ndarray, "h w"]:
    """Turn a soft mask into the probability the unary energy is made of."""
    if preset.unary == "probability":
        return soft_mask
    if preset.unary == "softmax":
        return 1.0 / (1.0 + np.exp(1.0 - 2.0 * soft_mask))
    levels = np.clip(soft_mask * 255.0 / preset.stretch, 0, 255).astype(np.uint8)
    if preset.blur >= 0.125:
        from scipy import ndimage  # here: workers that never blur start faster

        levels = ndimage.gaussian_filter(levels, preset.blur)
    return levels / (levels.max() + 1e-8)


def unary_energy(
    soft_mask: Float[np.ndarray, "h w"], preset: CrfPreset
) -> Float[np.ndarray, "2 h w"]:
    """Return the energy of labels background and foreground, -log probability."""
    probability = foreground_probability(soft_mask, preset)
    probability = np.clip(probability, _MARGIN, 1.0 - _MARGIN)
    return -np.log(np.stack([1.0 - probability, probability])).astype(np.float32)


def mean_field(
    image: UInt8[np.ndarray, "h w 3"],
    unary: Float[np.ndarray, "2 h w"],
    preset: CrfPreset,
    solver: Solver = "lattice",
) -> Float[np.ndarray, "h w"]:
    """Run mean-field inference; kernels as in the preset, sxy in this image's pixels.

    Kernels are normalised symmetrically and include each pixel itself, as in
    pydensecrf's default.

    Returns:
        Foreground probability.
    """
    if solver == "pydensecrf":
        return _pydensecrf(image, unary, preset)
    from imas_jax.appearance import lattice  # here: presets are readable without numba

    kernels = []
    if preset.gaussian_weight:
        kernels.append(lattice.Kernel(preset.gaussian_weight, preset.gaussian_sxy))
    if preset.bilateral_weight:
        kernels.append(
            lattice.Kernel(
                preset.bilateral_weight, preset.bilateral_sxy, preset.bilateral_srgb
            )
        )
    return lattice.mean_field(
        unary[0] - unary[1], image, kernels, preset.iterations, preset.tolerance
    )


def _pydensecrf(
    image: np.ndarray, unary: np.ndarray, preset: CrfPreset
) -> Float[np.ndarray, "h w"]:
    from pydensecrf import densecrf  # here: it may be missing

    h, w = image.shape[:2]
    crf = densecrf.DenseCRF2D(w, h, 2)
    crf.setUnaryEnergy(np.ascontiguousarray(unary.reshape(2, h * w)))
    if preset.gaussian_weight:
        crf.addPairwiseGaussian(sxy=preset.gaussian_sxy, compat=preset.gaussian_weight)
    if preset.bilateral_weight:
        crf.addPairwiseBilateral(
            sxy=preset.bilateral_sxy,
            srgb=preset.bilateral_srgb,
            rgbim=np.array(image, order="C"),  # it refuses read-only buffers
            compat=preset.bilateral_weight,
        )
    return np.array(crf.inference(preset.iterations))[1].reshape(h, w)


def at_resolution(preset: CrfPreset, size: tuple[int, int]) -> CrfPreset:
    """Scale the kernels' reach to an image of `size = (h, w)`."""
    if not preset.short_side:
        return preset
    factor = min(size) / preset.short_side
    return dataclasses.replace(
        preset,
        bilateral_sxy=preset.bilateral_sxy * factor,
        gaussian_sxy=preset.gaussian_sxy * factor,
        short_side=0,
    )


def _pool(workers: int, solver: Solver) -> concurrent.futures.Executor:
    """Start threads, or processes where the solver keeps Python's global lock."""
    if solver == "lattice":
        return concurrent.futures.ThreadPoolExecutor(workers)
    # Spawned, not forked: JAX's threads do not survive a fork.
    return concurrent.futures.ProcessPoolExecutor(
        workers, multiprocessing.get_context("spawn"), _end_with_parent
    )


def _end_with_parent() -> None:
    """Leave signals to the parent, and die when it dies, however that is."""
    # Of a cluster they may come to all processes of a task.
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1, signal.SIGUSR2):
        signal.signal(number, signal.SIG_IGN)

    def watch() -> None:
        if parent := multiprocessing.parent_process():
            parent.join()
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


def _solve(
    image: np.ndarray, soft_mask: np.ndarray, preset: CrfPreset, solver: Solver
) -> CrfResult:
    soft_mask = soft_mask.astype(np.float32)
    if soft_mask.min() == soft_mask.max():
        return CrfResult(soft_mask > 0.5, soft_mask)
    preset = at_resolution(preset, image.shape[:2])
    found = mean_field(image, unary_energy(soft_mask, preset), preset, solver)
    return CrfResult(found > 0.5, found)


def _check(image: np.ndarray, soft_mask: np.ndarray) -> None:
    """Refuse what the solver would take and answer with nonsense."""
    if image.dtype != np.uint8 or image.shape != (*soft_mask.shape, 3):
        raise UserError(
            f"CRF input: image {image.dtype} {image.shape}, mask {soft_mask.shape}",
            "a uint8 RGB image (h, w, 3) and a mask (h, w)",
            "resize one to the other's size before refining",
        )
    bad = np.count_nonzero(~np.isfinite(soft_mask))
    if bad:
        raise UserError(
            f"soft mask with {bad} of {soft_mask.size} values not finite",
            "foreground probabilities in [0, 1]",
            "the network that made it has diverged: use an earlier checkpoint",
        )
    if soft_mask.min() < -1e-3 or soft_mask.max() > 1 + 1e-3:
        raise UserError(
            f"soft mask with values in [{soft_mask.min():g}, {soft_mask.max():g}]",
            "foreground probabilities in [0, 1]",
            "divide masks stored as 0..255 by 255",
        )


def _checked(preset: CrfPreset) -> CrfPreset:
    """Refuse numbers no CRF can have."""
    positive = ("stretch", "bilateral_sxy", "bilateral_srgb", "gaussian_sxy")
    wrong = [name for name in positive if not getattr(preset, name) > 0]
    if preset.iterations < 1:
        wrong.append("iterations")
    if wrong:
        raise UserError(
            f"CRF preset with {', '.join(wrong)} not above 0",
            "positive kernel sizes, stretch and iterations",
            "use a weight of 0 to leave a kernel out",
        )
    weights = ("bilateral_weight", "gaussian_weight")
    negative = [n for n in (*weights, "tolerance") if not getattr(preset, n) >= 0]
    if negative:
        raise UserError(
            f"CRF preset with {', '.join(negative)} below 0",
            "weights and a tolerance of 0 or more",
            "use 0 to leave a kernel out, or to make all updates",
        )
    return preset
