"""Parts along the border: what goes, and what stays whatever lies beside it."""

import numpy as np
import pytest

from imas_jax.appearance import parts


def drawn(*boxes, size=(40, 60)):
    """Draw boxes (top, left, bottom, right) at 0.9 on a ground of 0.1."""
    likely = np.full(size, 0.1, np.float32)
    for top, left, bottom, right in boxes:
        likely[top:bottom, left:right] = 0.9
    return likely


INSIDE = (10, 10, 22, 24)
WATER = (34, 0, 40, 60)


def test_a_strip_along_the_border_goes_beside_an_object_and_leaves_the_rest_alone():
    found = parts.clear_of_border(drawn(INSIDE, WATER), 0.25)
    expected = drawn(INSIDE, WATER)
    expected[34:] = 0
    np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize(
    "boxes",
    [
        (),
        (WATER,),  # nothing clear of the border
        (INSIDE,),
        ((10, 0, 30, 50),),  # an object that enters, alone
        (WATER, (10, 10, 14, 14)),  # what is clear is much smaller: 16 of 360
    ],
)
def test_what_stays(boxes):
    likely = drawn(*boxes)
    np.testing.assert_array_equal(parts.clear_of_border(likely, 0.25), likely)


def test_contact_is_counted_in_roots_of_the_area():
    likely = drawn(INSIDE, (0, 30, 30, 34))  # 4 pixels over a root of 10.95
    assert parts.clear_of_border(likely, 0.36)[0, 30] == 0
    assert parts.clear_of_border(likely, 0.37)[0, 30] == np.float32(0.9)


def test_a_pixel_in_a_corner_touches_the_border_once():
    likely = drawn(INSIDE, (0, 0, 4, 4))  # 7 pixels over a root of 4: 1.75
    assert parts.clear_of_border(likely, 1.75)[0, 0] == 0
    assert parts.clear_of_border(likely, 1.76)[0, 0] == np.float32(0.9)


def test_no_contact_asked_for_drops_nothing():
    likely = drawn(INSIDE, WATER)
    np.testing.assert_array_equal(parts.clear_of_border(likely, 0), likely)
