import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from imas_jax.stages.unsure import undecided


@pytest.mark.parametrize(
    ("likely", "expected"),
    [
        ([[0.0, 1.0], [0.9, 0.1]], 0.0),  # all decided
        ([[0.5, 1.0], [0.9, 0.1]], 1 / 3),  # one of the three that may be object
        ([[0.5, 0.6], [0.3, 0.7]], 1.0),
        ([[0.1, 0.2], [0.0, 0.0]], 0.0),  # nothing may be object
    ],
)
def test_unsure_is_the_undecided_share_of_what_may_be_object(likely, expected):
    assert undecided(np.array(likely, np.float32)) == pytest.approx(expected)


def test_a_larger_background_changes_nothing():
    likely = np.array([[0.5, 1.0, 0.8]], np.float32)
    wide = np.pad(likely, ((5, 5), (9, 9)))
    assert undecided(wide) == undecided(likely) == pytest.approx(1 / 3)


@given(arrays(np.float32, (4, 5), elements=st.floats(0, 1, width=32)))
def test_it_is_a_share(likely):
    assert 0 <= undecided(likely) <= 1
