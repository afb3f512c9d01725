"""Colour operations against OpenCV's and the authors', in grey levels.

Ours keep real numbers where the authors truncate to 8 bits (imas_jax/data/augment.py):
brightness and contrast are compared after truncation, exactly; saturation and hue with
the same operation in real-valued HSV, and with what 8-bit HSV adds to that.
"""

import re

import cv2
import jax.numpy as jnp
import numpy as np
import pytest

from imas_jax.data import augment

pytestmark = pytest.mark.parity

# Real-valued OpenCV works in float32 on hues up to 360.
REAL = 0.02


def turned(hsv, factor=1.0, shift=0.0):
    """Scale saturation and turn hue (of 180) in OpenCV's real-valued HSV."""
    hsv = hsv.copy()
    hsv[..., 0] = (hsv[..., 0] + 2 * shift) % 360
    hsv[..., 1] = np.clip(hsv[..., 1] * factor, 0, 1)
    return cv2.cvtColor(hsv, cv2.COLOR_HSV2RGB) * 255


def ours(image, name, value):
    levels = jnp.asarray(image, jnp.float32)
    factor, shift = (1.0, value) if name in ("brightness", "hue") else (value, 0.0)
    pair = jnp.asarray(factor), jnp.asarray(shift)
    if name in ("brightness", "contrast"):
        return np.asarray(augment.linear(levels, *pair)).astype(np.uint8)
    return np.asarray(augment.saturation_and_hue(levels, *pair))


def test_colour_operations_agree(authors, record):
    file = authors.load("augment")
    image, hsv = file["rgb_in"], file["hsv_f32_from_unit_rgb"]
    checked = set()
    for key, theirs in file.items():
        found = re.fullmatch(r"(brightness|contrast|saturation|hue)_(.+)", key)
        if not found:
            continue
        name, value = found[1], float(found[2])
        got = ours(image, name, value).astype(np.float64)
        checked.add(name)
        if name in ("brightness", "contrast"):
            gap = np.abs(got - theirs).max()
            record("augment", f"{key}, truncated, grey levels", gap, None, 0)
            continue
        options = {"factor": value} if name == "saturation" else {"shift": value}
        real = turned(hsv, **options)
        gap = np.abs(got - real).max()
        record("augment", f"{key}, real HSV, grey levels", gap, None, REAL)
        floor = np.abs(real - theirs).max()
        gap = np.abs(got - theirs).max()
        record("augment", f"{key}, 8-bit HSV, grey levels", gap, floor, floor + REAL)
    assert len(checked) == 4


def test_the_round_trip_through_hsv_changes_nothing(authors, record):
    file = authors.load("augment")
    got = ours(file["rgb_in"], "saturation", 1.0)
    gap = np.abs(got - file["rgb_f32_roundtrip"] * 255).max()
    record("augment", "round trip, real HSV, grey levels", gap, None, REAL)
