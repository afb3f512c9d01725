"""How soft masks meet the size of a frame."""

import numpy as np
import pytest

from imas_jax import geometry
from imas_jax.stages import predictor


@pytest.mark.parametrize("size", [(24, 41), (7, 9), (5, 60)])
def test_masks_meet_the_frame_corner_on_corner_and_stay_probabilities(size):
    soft = np.random.default_rng(0).dirichlet(np.ones(3), (7, 9)).astype(np.float32)
    whole = predictor.to_frame(soft, size)
    assert (whole.shape, whole.dtype) == ((*size, 3), np.float32)
    np.testing.assert_array_equal(whole[:: size[0] - 1, :: size[1] - 1], soft[::6, ::8])
    np.testing.assert_allclose(whole.sum(axis=-1), 1.0, atol=1e-6)
    rows, columns = (
        geometry.resize_matrix(n, m, "align_corners")
        for n, m in zip((7, 9), size, strict=True)
    )
    wanted = np.einsum("ih,jw,hwc->ijc", rows, columns, soft)
    np.testing.assert_allclose(whole, wanted, atol=1e-6)
