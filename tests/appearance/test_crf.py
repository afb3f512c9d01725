"""Dense CRF: closed forms, defined results for degenerate masks, solvers, pools."""

import dataclasses
import os
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from imas_jax.appearance import crf
from imas_jax.errors import UserError


@pytest.fixture
def square():
    """Image of a bright square and a soft mask that covers it badly."""
    image = np.full((48, 64, 3), 40, np.uint8)
    image[12:36, 20:44] = 200
    mask = np.full((48, 64), 0.1, np.float32)
    mask[14:40, 18:40] = 0.9
    truth = image[..., 0] == 200
    return image, mask, truth


def test_a_misplaced_mask_is_pulled_onto_the_edges_of_the_image(square):
    image, mask, truth = square
    for name in crf.PRESETS:
        result = crf.refine(image, mask, name)
        before = np.mean((mask > 0.5) != truth)
        after = np.mean(result.mask != truth)
        assert after < before, name
        assert result.probability.dtype == np.float32
        assert result.mask.dtype == bool


def test_without_kernels_the_probability_is_the_unary_one(square):
    image, mask, _ = square
    alone = crf.CrfPreset(
        unary="probability", bilateral_weight=0.0, gaussian_weight=0.0
    )
    result = crf.refine(image, mask, alone)
    np.testing.assert_allclose(result.probability, mask, rtol=1e-5)


def test_stretched_unary_follows_its_closed_form():
    mask = np.array([[0.0, 0.35, 0.7, 0.9]], np.float32)
    probability = crf.foreground_probability(mask, crf.PRESETS["authors_target"])
    np.testing.assert_allclose(probability, [[0, 127 / 255, 1, 1]], atol=1e-6)


def test_softmax_unary_follows_its_closed_form():
    mask = np.array([[0.0, 0.5, 1.0]])
    probability = crf.foreground_probability(mask, crf.PRESETS["tokencut"])
    both = np.exp(np.stack([1 - mask, mask]))
    np.testing.assert_allclose(probability, both[1] / both.sum(axis=0))


def test_one_update_equals_a_direct_sum_over_all_pairs(square):
    image, mask, _ = square
    image, mask = image[::6, ::6], mask[::6, ::6]
    preset = crf.CrfPreset(
        unary="probability",
        bilateral_weight=0.0,
        gaussian_sxy=2.0,
        gaussian_weight=3.0,
        iterations=1,
        short_side=0,
    )
    h, w = mask.shape
    grid = np.stack(np.mgrid[:h, :w], axis=-1).reshape(-1, 2) / 2.0
    kernel = np.exp(-0.5 * np.square(grid[:, None] - grid).sum(axis=-1))
    norm = 1 / np.sqrt(kernel.sum(axis=1))
    kernel = norm[:, None] * kernel * norm
    unary = crf.unary_energy(mask, preset).reshape(2, -1)
    start = np.exp(-unary)
    energy = -unary + 3.0 * (start / start.sum(axis=0)) @ kernel
    want = 1 / (1 + np.exp(energy[0] - energy[1])).reshape(h, w)
    got = crf.refine(image, mask, preset).probability
    # The lattice approximates the kernel; transposed axes or a missing
    # normalisation are off by ten times as much.
    assert np.abs(got - want).mean() < 0.01


def test_kernels_reach_scales_with_the_short_side():
    preset = crf.at_resolution(crf.PRESETS["gwm"], (120, 214))
    assert preset.bilateral_sxy == pytest.approx(67 / 4)
    assert preset.gaussian_sxy == pytest.approx(1 / 4)
    assert preset.bilateral_srgb == 3
    assert crf.at_resolution(preset, (240, 428)) == preset


@pytest.mark.parametrize("value", [0.0, 0.3, 0.5, 0.8, 1.0])
@pytest.mark.parametrize("name", list(crf.PRESETS))
def test_a_constant_mask_stays_what_it_is(square, value, name):
    image, mask, _ = square
    result = crf.refine(image, np.full_like(mask, value), name)
    assert (result.probability == np.float32(value)).all()
    assert (result.mask == (value > 0.5)).all()


def test_a_mask_with_nan_is_refused_with_the_count(square):
    image, mask, _ = square
    mask[:2, 0] = np.nan
    with pytest.raises(UserError, match="2 of 3072 values not finite"):
        crf.refine(image, mask, "gwm")


def test_masks_and_images_that_do_not_belong_together_are_refused(square, unchecked):
    image, mask, _ = square
    with pytest.raises(UserError, match="resize one to the other"):
        crf.refine(image[:-1], mask, "gwm")
    with pytest.raises(UserError, match="divide masks stored as"):
        crf.refine(image, mask * 255, "gwm")


def test_presets_are_read_with_overridden_numbers():
    assert crf.get_preset("paper") == crf.PRESETS["paper"]
    preset = crf.get_preset("gwm:iterations=5,bilateral_srgb=7.5")
    want = dataclasses.replace(crf.PRESETS["gwm"], iterations=5, bilateral_srgb=7.5)
    assert preset == want


@pytest.mark.parametrize(
    "text",
    [
        "authors",
        "gwm:iteration=5",
        "gwm:iterations=many",
        "gwm:iterations=0",
        "gwm:tolerance=-1",
        "gwm:gaussian_weight=-1",
        "gwm:tolerance=nan",
    ],
)
def test_unknown_presets_and_numbers_are_refused(text):
    with pytest.raises(UserError, match="what to do"):
        crf.get_preset(text)


@pytest.fixture(params=["lattice", "pydensecrf"])
def solver(request):
    """Each solver that is installed."""
    if request.param == "pydensecrf":
        pytest.importorskip("pydensecrf")
    return request.param


def test_the_pool_gives_the_results_of_the_plain_loop_in_order(square, solver):
    image, mask, _ = square
    pairs = [(np.roll(image, 3 * i, 1), np.roll(mask, 3 * i, 1)) for i in range(12)]
    fast = dataclasses.replace(crf.PRESETS["gwm"], iterations=2)
    pooled = list(crf.refine_many(iter(pairs), fast, workers=2, solver=solver))
    plain = list(crf.refine_many(iter(pairs), fast, workers=1, solver=solver))
    assert len(pooled) == 12
    for a, b in zip(pooled, plain, strict=True):
        np.testing.assert_array_equal(a.probability, b.probability)
        np.testing.assert_array_equal(a.mask, b.mask)


def test_the_pool_reports_a_bad_mask_and_stops(square, solver):
    image, mask, _ = square
    pairs = [(image, mask), (image, mask * np.nan)]
    with pytest.raises(UserError, match="not finite"):
        list(crf.refine_many(pairs, "gwm:iterations=1", workers=2, solver=solver))


def test_the_pool_draws_pairs_only_a_few_ahead(square):
    image, mask, _ = square
    drawn = []

    def pairs():
        for i in range(100):
            drawn.append(i)
            yield image, mask

    next(crf.refine_many(pairs(), "gwm:iterations=1", workers=2))
    assert len(drawn) < 20


def test_without_pydensecrf_only_that_solver_is_refused(square):
    code = """
import sys
import time
from pathlib import Path
sys.modules["pydensecrf"] = None  # as if it were not installed
import numpy as np
from imas_jax.appearance import crf
from imas_jax.errors import UserError
image, mask = np.zeros((4, 4, 3), np.uint8), np.eye(4, dtype=np.float32)
crf.refine(image, mask, "gwm")
try:
    crf.refine(image, mask, "gwm", solver="pydensecrf")
except UserError as error:
    sys.exit(0 if "crf.solver=lattice" in str(error) else "another message")
sys.exit("not refused")
"""
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_an_unknown_solver_is_refused_with_those_there_are(square, unchecked):
    image, mask, _ = square
    with pytest.raises(UserError, match="lattice or pydensecrf"):
        crf.refine(image, mask, "gwm", solver="densecrf")


def test_a_worker_never_imports_jax():
    code = "import sys, imas_jax.appearance.crf; sys.exit('jax' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


PARENT = """
import multiprocessing, time
import numpy as np
from imas_jax.appearance import crf

if __name__ == "__main__":
    pair = np.zeros((8, 8, 3), np.uint8), np.eye(8, dtype=np.float32)
    results = crf.refine_many([pair] * 20, "gwm", 2, "pydensecrf")
    next(results)
    workers = multiprocessing.active_children()
    print(*(worker.pid for worker in workers), flush=True)
    time.sleep(600)
"""


def test_workers_die_with_a_parent_that_is_killed(tmp_path):
    pytest.importorskip("pydensecrf.densecrf")
    script = tmp_path / "parent.py"
    script.write_text(PARENT)
    environment = os.environ | {"PYTHONPATH": str(Path(crf.__file__).parents[2])}
    parent = subprocess.Popen(
        [sys.executable, script], env=environment, stdout=subprocess.PIPE, text=True
    )
    with parent:
        workers = [int(pid) for pid in parent.stdout.readline().split()]
        parent.kill()
    assert len(workers) == 2
    end = time.monotonic() + 30
    while any(is_running(pid) for pid in workers):
        assert time.monotonic() < end, "workers outlived their parent"
        time.sleep(0.05)


def is_running(pid):
    """Tell whether a process lives; one that nobody has waited for does not."""
    try:
        return bool(Path(f"/proc/{pid}/cmdline").read_bytes())
    except (FileNotFoundError, ProcessLookupError):
        return False
