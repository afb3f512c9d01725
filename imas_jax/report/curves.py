"""Training curves as inline SVG: no plotting library, no script, no network.

Colours come from the page (`currentColor` and the classes `c0`, `c1`, ...), so curves
follow its light or dark theme.
"""

import dataclasses
import html
import math
from collections.abc import Sequence

import numpy as np

POINTS = 300  # a curve is thinned to so many: more cannot be seen
_LEFT, _RIGHT, _TOP, _BOTTOM = 52.0, 12.0, 10.0, 30.0


@dataclasses.dataclass(frozen=True)
class Curve:
    """One line.

    Attributes:
        label: For the legend.
        steps: Increasing.
        values: One a step; what is not finite leaves a gap.
    """

    label: str
    steps: Sequence[float | int] | np.ndarray
    values: Sequence[float | int] | np.ndarray


@dataclasses.dataclass(frozen=True)
class Panel:
    """One diagram.

    Attributes:
        title: E.g. "stage 1 loss".
        unit: Of the values, e.g. "px"; "" for none.
        curves: Lines that share both axes.
        logarithmic: Whether the value axis is; values must be positive then.
    """

    title: str
    unit: str
    curves: tuple[Curve, ...]
    logarithmic: bool = False


def svg(panel: Panel, width: int = 460, height: int = 230) -> str:
    """Draw a panel; one without a finite value says so."""
    curves = [thin(curve) for curve in panel.curves]
    curves = [curve for curve in curves if len(curve.steps)]
    told = "; ".join([panel.title, *map(_words, curves)])
    head = (
        f'<svg class="curves" viewBox="0 0 {width} {height}" role="img" '
        f'aria-label="{html.escape(told)}">'
    )
    if not curves:
        return head + f'<text x="{width / 2}" y="{height / 2}">no values</text></svg>'
    x = _Axis.of([c.steps for c in curves], (_LEFT, width - _RIGHT))
    y = _Axis.of(
        [c.values for c in curves], (height - _BOTTOM, _TOP), panel.logarithmic
    )
    parts = [head]
    for tick in y.ticks():
        at = y.place(tick)
        parts.append(
            f'<line class="grid" x1="{_LEFT}" x2="{width - _RIGHT}" '
            f'y1="{at:.1f}" y2="{at:.1f}"/>'
            f'<text class="tick" x="{_LEFT - 6}" y="{at + 3.5:.1f}" '
            f'text-anchor="end">{tick:.3g}</text>'
        )
    for tick in x.ticks():
        parts.append(
            f'<text class="tick" x="{x.place(tick):.1f}" y="{height - 14}" '
            f'text-anchor="middle">{tick:g}</text>'
        )
    for number, curve in enumerate(curves):
        points = " ".join(
            f"{x.place(s):.1f},{y.place(v):.1f}"
            for s, v in zip(curve.steps, curve.values, strict=True)
        )
        parts.append(f'<polyline class="c{number % 6}" points="{points}"/>')
    return "".join(parts) + "</svg>"


def _words(curve: Curve) -> str:
    """Tell a curve to who cannot see it."""
    return (
        f"{curve.label}: {curve.values[0]:.3g} at {curve.steps[0]:g}, "
        f"{curve.values[-1]:.3g} at {curve.steps[-1]:g}"
    )


def thin(curve: Curve) -> Curve:
    """Leave out what is not finite and average neighbours down to `POINTS` points."""
    steps = np.asarray(curve.steps, float)
    values = np.asarray(curve.values, float)
    finite = np.isfinite(values)
    steps, values = steps[finite], values[finite]
    if len(steps) > POINTS:
        groups = np.array_split(np.arange(len(steps)), POINTS)
        steps = np.array([steps[group].mean() for group in groups])
        values = np.array([values[group].mean() for group in groups])
    return Curve(curve.label, steps.tolist(), values.tolist())


@dataclasses.dataclass(frozen=True)
class _Axis:
    """Values from `low` to `high` drawn from pixel `begin` to `end`."""

    low: float
    high: float
    begin: float
    end: float
    logarithmic: bool

    @classmethod
    def of(
        cls,
        series: Sequence[Sequence[float | int] | np.ndarray],
        pixels: tuple[float, float],
        logarithmic: bool = False,
    ) -> "_Axis":
        """Fit an axis around all values of several curves."""
        low = min(min(values) for values in series)
        high = max(max(values) for values in series)
        logarithmic = logarithmic and low > 0
        if low == high:
            low, high = low - abs(low) * 0.1 - 1e-9, high + abs(high) * 0.1 + 1e-9
        return cls(low, high, *pixels, logarithmic)

    def place(self, value: float) -> float:
        """Return a value's pixel."""
        low, high = self.low, self.high
        if self.logarithmic:
            low, high, value = math.log(low), math.log(high), math.log(value)
        return self.begin + (value - low) / (high - low) * (self.end - self.begin)

    def ticks(self) -> list[float]:
        """Return three to seven round values within the axis."""
        if self.logarithmic and self.high / self.low > 20:
            first = math.ceil(math.log10(self.low) - 1e-9)
            last = math.floor(math.log10(self.high) + 1e-9)
            return [10.0**power for power in range(first, last + 1)]
        rough = (self.high - self.low) / 4
        power = 10 ** math.floor(math.log10(rough))
        step = min((m * power for m in (1, 2, 5, 10)), key=lambda s: abs(s - rough))
        first = math.ceil(self.low / step - 1e-9)
        last = math.floor(self.high / step + 1e-9)
        return [round(float(number * step), 12) for number in range(first, last + 1)]
