"""Parity item 6: equations 10-13 and RCF's normalised cut."""

import numpy as np
import pytest

from imas_jax import semantic

pytestmark = pytest.mark.parity

SCENES = ["a", "b", "c", "d"]
THRESHOLDS = ["0.3", "0.5", "0.7"]


@pytest.fixture(scope="module")
def golden(authors):
    return authors.load("semantic")


def load_scene(golden, authors, scene):
    features = golden[f"{scene}/feat"].transpose(1, 2, 0)
    soft = golden[f"{scene}/soft"]
    hard = authors.recipe.unpack(golden[f"{scene}/hard_bits"], soft.shape)
    return features, soft, hard


@pytest.mark.parametrize("kind", ["soft", "hard"])
@pytest.mark.parametrize("scene", SCENES)
def test_pooling_and_cosine(golden, authors, record, scene, kind):
    features, soft, hard = load_scene(golden, authors, scene)
    mask = soft if kind == "soft" else hard.astype(np.float32)
    pooled = semantic.pool(features, mask[..., None])
    cosine = semantic.similarity(features, pooled)[..., 0]
    key = f"{scene}/{kind}"
    for name, got in (("pooled", pooled[0]), ("cosine", cosine)):
        error = np.abs(got - golden[f"{key}/{name}"]).max()
        record("semantic", f"{key} {name}", error, None, 1e-6)


@pytest.mark.parametrize("threshold", THRESHOLDS)
@pytest.mark.parametrize("kind", ["soft", "hard"])
@pytest.mark.parametrize("scene", SCENES)
def test_match_constraint_and_score(golden, authors, record, scene, kind, threshold):
    features, soft, hard = load_scene(golden, authors, scene)
    mask = soft if kind == "soft" else hard.astype(np.float32)
    pooled = semantic.pool(features, mask[..., None])
    match = semantic.similarity(features, pooled)[..., 0] > float(threshold)
    key = f"{scene}/{kind}/th{threshold}"

    def differing(got, name):
        want = authors.recipe.unpack(golden[f"{key}/{name}_bits"], soft.shape)
        return np.count_nonzero(got != want)

    wrong = differing(match, "match")
    for size in (3, 7):
        constrained = semantic.constrain(hard, match, size).mask
        wrong += differing(semantic.dilate(match, size), f"dilate{size}")
        wrong += differing(constrained, f"constrained_hard_dilate{size}")
    record("semantic", f"{key}: differing pixels", wrong, None, 0)
    numbers = {
        "extent_width_height": semantic.extent(match),
        "discard": semantic.is_discarded(match),
        "iou_hard_vs_match": semantic.overlap(hard, match),
        "score": semantic.alignment_score(hard, match),
    }
    error = max(
        np.abs(np.subtract(got, golden[f"{key}/{name}"], dtype=float)).max()
        for name, got in numbers.items()
    )
    record("semantic", f"{key}: extent, rule, IoU, score", error, None, 1e-12)


@pytest.mark.parametrize("kind", ["soft", "hard", "inverse"])
@pytest.mark.parametrize("scene", ["a", "d"])
def test_normalised_cut(golden, authors, record, scene, kind):
    features, soft, hard = load_scene(golden, authors, scene)
    mask = {"soft": soft, "hard": hard.astype(float), "inverse": 1.0 - soft}[kind]
    got = semantic.normalized_cut(features.astype(np.float64), mask)
    want = golden[f"{scene}/ncut_float64_{kind}"]
    floor = abs(want - golden[f"{scene}/ncut_official_{kind}"])
    record("semantic", f"{scene} cut of {kind}", abs(got - want), floor, 1e-12)
