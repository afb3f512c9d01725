"""How frames become soft masks on devices, and those meet the size of a frame."""

import jax
import numpy as np
import pytest
from flax import linen as nn
from ml_collections import ConfigDict

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


class Net(nn.Module):
    """A network of one layer."""

    @nn.compact
    def segment(self, frames):
        return nn.Conv(3, (5, 5), 2)(frames)


@pytest.mark.parametrize("flip", [False, True])
def test_devices_share_the_frames_and_change_no_bit(flip, unchecked):
    rng = np.random.default_rng(0)
    # Ends of clips in the middle of batches, and another size in between.
    sizes = [(5, (24, 32)), (1, (24, 32)), (7, (32, 24)), (3, (24, 32))]
    clips = [rng.integers(0, 255, (n, *size, 3), np.uint8) for n, size in sizes]
    config = ConfigDict({"batch_size": 2, "flip": flip, "short_side": 16})
    net = Net()
    blank = np.zeros((1, 16, 20, 3), np.float32)
    variables = net.init(jax.random.key(0), blank, method="segment")

    def masks(devices):
        predict = predictor.Predictor(net, variables, config, devices=devices)
        return [one.tobytes() for one in predict.of_clips(clips)]

    alone = masks(1)
    assert len(alone) == 16
    assert masks(3) == alone
    assert masks(0) == alone  # all eight
