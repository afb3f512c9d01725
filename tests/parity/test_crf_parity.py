"""Parity item 7: the labels of the authors' CRF recipes, with their library and ours.

Their library must give their numbers; ours gives their labels and probabilities
within `BOUNDS`.
"""

import dataclasses

import numpy as np
import pytest

from imas_jax.appearance import crf

pytestmark = pytest.mark.parity

# Greatest difference of a probability: sums of float32 in another order.
BOUNDS = {"lattice": 1e-5, "pydensecrf": 1e-6}

KERNELS = {
    "bil_official": {"bilateral_sxy": 60.0, "bilateral_srgb": 5.0},
    "bil_wide": {"bilateral_sxy": 10.0, "bilateral_srgb": 20.0},
    "gauss": {"bilateral_weight": 0.0, "gaussian_sxy": 3.0, "gaussian_weight": 3.0},
    "gauss_bil": {
        "bilateral_sxy": 12.0,
        "bilateral_srgb": 13.0,
        "gaussian_sxy": 3.0,
        "gaussian_weight": 3.0,
    },
}


@pytest.fixture(scope="module")
def golden(authors):
    return authors.load("crf")


@pytest.fixture(params=["lattice", "pydensecrf"])
def solver(request):
    if request.param == "pydensecrf":
        pytest.importorskip("pydensecrf")
    return request.param


def names(golden, ending):
    """Return the frames that have a key with this ending."""
    found = [key.removesuffix(ending) for key in golden if key.endswith(ending)]
    if not found:
        pytest.skip("no frames in the subset; make parity runs this test")
    return found


@pytest.mark.parametrize(
    ("recipe", "preset"), [("head", "authors_target"), ("post", "authors_post")]
)
def test_full_frames_get_the_authors_labels(
    golden, authors, record, recipe, preset, solver
):
    for frame in names(golden, "/sha1_rgb"):
        image = authors.frame(str(golden[f"{frame}/sha1_rgb"]))
        mask = (golden[f"{frame}/degraded_mask_u8"] / 255).astype(np.float32)
        bits = golden[f"{frame}/{recipe}_labels_bits"]
        labels = authors.recipe.unpack(bits, mask.shape)
        found = crf.refine(image, mask, preset, solver).mask
        different = np.count_nonzero(found != labels)
        quantity = f"{frame} {preset}, {solver}: differing labels"
        record("CRF", quantity, different, None, 0)


@pytest.mark.parametrize("iterations", [1, 5, 50])
def test_mask_size_frames_get_the_authors_probabilities(
    golden, record, iterations, solver
):
    preset = dataclasses.replace(
        crf.PRESETS["authors_target"], iterations=iterations, short_side=0
    )
    for frame in names(golden, "/mask_u8"):
        mask = (golden[f"{frame}/mask_u8"] / 255).astype(np.float32)
        got = crf.refine(golden[f"{frame}/image"], mask, preset, solver).probability
        want = golden[f"{frame}/pydensecrf_it{iterations}_prob_fg"]
        quantity = f"{frame}, {iterations} updates, {solver}: probability"
        record("CRF", quantity, np.abs(got - want).max(), None, BOUNDS[solver])


@pytest.mark.parametrize("kernels", list(KERNELS))
@pytest.mark.parametrize("iterations", [1, 5, 50])
def test_every_kernel_set_matches_from_the_same_unary(
    golden, record, kernels, iterations, solver
):
    preset = crf.CrfPreset(**KERNELS[kernels], iterations=iterations, short_side=0)
    unary = golden["small/unary"]
    got = crf.mean_field(golden["small/image"], unary, preset, solver)
    want = golden[f"small/{kernels}/pydensecrf_it{iterations}"]
    quantity = f"kernels {kernels}, {iterations} updates, {solver}: probability"
    record("CRF", quantity, np.abs(got - want).max(), None, BOUNDS[solver])


def test_the_unary_is_the_authors(golden, record):
    got = crf.unary_energy(golden["small/softmask"], crf.PRESETS["authors_target"])
    want = golden["small/unary"]
    error = np.abs(got - want).max() / np.abs(want).max()
    record("CRF", "unary energy, relative", error, None, 1e-6)
