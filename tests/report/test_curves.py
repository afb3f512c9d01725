import xml.etree.ElementTree as ET

import numpy as np
import pytest

from imas_jax.report import curves
from imas_jax.report.curves import Curve, Panel


def draw(*series, logarithmic=False) -> ET.Element:
    lines = tuple(Curve(str(i), *xy) for i, xy in enumerate(series))
    return ET.fromstring(curves.svg(Panel("loss", "px", lines, logarithmic)))


def points(root: ET.Element, number: int = 0) -> np.ndarray:
    line = root.findall("polyline")[number]
    return np.array(
        [list(map(float, p.split(","))) for p in line.get("points").split()]
    )


def ticks(root: ET.Element, anchor: str) -> list[float]:
    found = [t for t in root.findall("text") if t.get("text-anchor") == anchor]
    return [float(t.text) for t in found]


def test_lines_lie_where_their_values_are():
    line = points(draw(([0, 50, 100], [1.0, 3.0, 2.0])))
    assert line[0, 0] < line[1, 0] < line[2, 0]
    # Up on the page is less y; the middle value is half way between the two others.
    assert line[1, 1] < line[2, 1] < line[0, 1]
    assert line[2, 1] == pytest.approx((line[0, 1] + line[1, 1]) / 2, abs=0.1)


def test_a_logarithmic_axis_spaces_decades_evenly():
    root = draw(([0, 1, 2], [1e-2, 1e-3, 1e-4]), logarithmic=True)
    gaps = np.diff(points(root)[:, 1])
    assert gaps[0] == pytest.approx(gaps[1], abs=0.2)
    assert ticks(root, "end") == [1e-4, 1e-3, 1e-2]


@pytest.mark.parametrize("high", [0.004, 1.0, 7.3, 40_000])
def test_ticks_are_few_and_round(high):
    found = ticks(draw(([0, high], [0, high])), "end")
    assert 3 <= len(found) <= 7
    steps = np.diff(found)
    np.testing.assert_allclose(steps, steps[0], rtol=0.02)
    assert f"{steps[0]:.0e}"[0] in "125"


def test_two_curves_share_the_axes():
    root = draw(([0, 10], [0.0, 1.0]), ([0, 10], [0.0, 2.0]))
    assert points(root, 0)[1, 1] > points(root, 1)[1, 1]
    np.testing.assert_array_equal(points(root, 0)[0], points(root, 1)[0])


def test_many_points_are_thinned_and_keep_their_mean():
    steps = np.arange(12_345)
    curve = curves.thin(Curve("a", steps, np.sin(steps)))
    assert len(curve.steps) == curves.POINTS
    assert np.mean(curve.values) == pytest.approx(np.sin(steps).mean(), abs=1e-3)


def test_values_that_are_not_finite_are_left_out():
    assert len(points(draw(([0, 1, 2, 3], [1.0, np.nan, np.inf, 2.0])))) == 2


@pytest.mark.parametrize("values", [[], [np.nan], [2.0], [0.0, 0.0]])
def test_degenerate_curves_draw(values):
    root = draw((list(range(len(values))), values))
    finite = bool(np.isfinite(values).sum())
    assert bool(root.findall("polyline")) == finite


def test_a_title_may_hold_any_character():
    assert "a &lt; b" in curves.svg(Panel("a < b", "", ()))


def test_a_diagram_is_told_to_who_cannot_see_it():
    curve = curves.Curve("loss", [0, 5, 9], [2.0, np.nan, 0.5])
    drawn = curves.svg(curves.Panel("stage <1>", "px", (curve,)))
    label = 'aria-label="stage &lt;1&gt;; loss: 2 at 0, 0.5 at 9"'
    assert label in drawn
