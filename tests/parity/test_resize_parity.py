"""Resizing with both corner rules, and the libraries' own on 8-bit images."""

import re

import cv2
import jax
import numpy as np
import pytest
import torch_names
from PIL import Image

from imas_jax import geometry

pytestmark = pytest.mark.parity

RULES = {
    "bilinear_half_pixel": "half_pixel",
    "bilinear_align_corners": "align_corners",
}
PILLOW = {"bilinear": Image.Resampling.BILINEAR, "nearest": Image.Resampling.NEAREST}
OPENCV = {"linear": cv2.INTER_LINEAR, "nearest": cv2.INTER_NEAREST}


def resize_axis(maps, size, axis, rule, dtype):
    """Resample one axis with all arithmetic in `dtype`, positions included."""
    count = maps.shape[axis]
    index = np.arange(size, dtype=dtype)
    if rule == "align_corners":
        position = index * (dtype(count - 1) / dtype(max(size - 1, 1)))
    else:
        scale = dtype(count) / dtype(size)
        position = np.maximum(scale * (index + dtype(0.5)) - dtype(0.5), dtype(0))
    low = position.astype(int)
    high = np.minimum(low + 1, count - 1)
    shape = [1] * maps.ndim
    shape[axis] = size
    weight = (position - low.astype(dtype)).reshape(shape)
    low, high = np.take(maps, low, axis), np.take(maps, high, axis)
    return (1 - weight) * low + weight * high


@pytest.mark.parametrize("rule", RULES)
def test_floats_are_resized_as_the_authors_do(rule, authors, record):
    # Stored without a floor; it is what positions rounded to float32 change.
    file = authors.load("resize")
    corners = RULES[rule]
    keys = [key for key in file if key.endswith(f"/{rule}")]
    assert keys
    sizes = {key: file[key].shape[-2:] for key in keys}

    @jax.jit
    def resize_all(inputs):
        return {
            key: geometry.resize(inputs[key.split("/")[0]], sizes[key], corners)
            for key in keys
        }

    inputs = {
        key: torch_names.to_channels_last(value)
        for key, value in file.items()
        if key.startswith("in_") and "/" not in key
    }
    for key, ours in resize_all(inputs).items():
        given, (h, w) = file[key.split("/")[0]], sizes[key]
        single, double = (
            resize_axis(
                resize_axis(given.astype(dtype), h, -2, corners, dtype),
                w,
                -1,
                corners,
                dtype,
            )
            for dtype in (np.float32, np.float64)
        )
        floor = torch_names.error(single, double)
        gap = torch_names.error(torch_names.to_channels_first(ours), file[key])
        record("resize", key, gap, floor, torch_names.limit(floor))


def test_nearest_neighbour_takes_the_pixel_the_authors_take(authors, record):
    file = authors.load("resize")
    for key, theirs in file.items():
        if key.endswith("/nearest") and key.startswith("in_"):
            given = file[key.split("/")[0]]
            h, w = theirs.shape[-2:]
            planes = given.reshape(-1, *given.shape[-2:])
            ours = [
                cv2.resize(p, (w, h), interpolation=cv2.INTER_NEAREST) for p in planes
            ]
            gap = np.count_nonzero(np.stack(ours).reshape(theirs.shape) != theirs)
            record("resize", f"{key}: differing values", gap, None, 0)


def test_the_installed_libraries_resize_as_the_authors_did(authors, record):
    file = authors.load("resize")
    image = file["u8_in"]
    for key, theirs in file.items():
        h, w = theirs.shape[-2:]
        if found := re.fullmatch(r"u8_pil_\w+/(bilinear|nearest)", key):
            ours = Image.fromarray(image).resize((w, h), PILLOW[found[1]])
        elif found := re.fullmatch(r"u8_cv2_(linear|nearest)_\w+", key):
            ours = cv2.resize(image, (w, h), interpolation=OPENCV[found[1]])
        else:
            continue
        gap = np.abs(np.asarray(ours).astype(int) - theirs).max()
        record("resize", f"{key}, grey levels", gap, None, 0)
