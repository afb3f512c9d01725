"""Parity item 6: equations 10-13 and RCF's normalised cut."""

import re

import numpy as np
import pytest

from imas_jax.appearance import cuts, semantic

pytestmark = pytest.mark.parity


def found(golden, pattern):
    """Return the groups of all keys of a pattern: scenes, thresholds, sizes."""
    matches = (re.fullmatch(pattern, key) for key in golden)
    groups = [match.groups() for match in matches if match]
    assert groups, pattern
    return groups


@pytest.fixture(scope="module")
def golden(authors):
    return authors.load("semantic")


def load_scene(golden, authors, scene):
    features = golden[f"{scene}/feat"].transpose(1, 2, 0)
    soft = golden[f"{scene}/soft"]
    hard = authors.recipe.unpack(golden[f"{scene}/hard_bits"], soft.shape)
    return features, soft, hard


def test_pooling_and_cosine(golden, authors, record):
    for scene, kind in found(golden, r"(\w+)/(soft|hard)/pooled"):
        features, soft, hard = load_scene(golden, authors, scene)
        mask = soft if kind == "soft" else hard.astype(np.float32)
        pooled = semantic.pool(features, mask[..., None])
        cosine = semantic.similarity(features, pooled)[..., 0]
        key = f"{scene}/{kind}"
        for name, got in (("pooled", pooled[0]), ("cosine", cosine)):
            error = np.abs(got - golden[f"{key}/{name}"]).max()
            record("semantic", f"{key} {name}", error, None, 1e-6)


def test_match_constraint_and_score(golden, authors, record):
    for scene, kind, threshold in found(
        golden, r"(\w+)/(soft|hard)/th([\d.]+)/match_bits"
    ):
        features, soft, hard = load_scene(golden, authors, scene)
        mask = soft if kind == "soft" else hard.astype(np.float32)
        pooled = semantic.pool(features, mask[..., None])
        match = semantic.similarity(features, pooled)[..., 0] > float(threshold)
        key = f"{scene}/{kind}/th{threshold}"

        def bits(name, key=key, shape=soft.shape):
            return authors.recipe.unpack(golden[f"{key}/{name}_bits"], shape)

        wrong = np.count_nonzero(match != bits("match"))
        for (size,) in found(golden, rf"{key}/dilate(\d+)_bits"):
            constrained = semantic.constrain(hard, match, int(size)).mask
            wanted = bits(f"constrained_hard_dilate{size}")
            wrong += np.count_nonzero(constrained != wanted)
            dilated = semantic.dilate(match, int(size))
            wrong += np.count_nonzero(dilated != bits(f"dilate{size}"))
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


def test_normalised_cut(golden, authors, record):
    for scene, kind in found(golden, r"(\w+)/ncut_float64_(\w+)"):
        features, soft, hard = load_scene(golden, authors, scene)
        mask = {"soft": soft, "hard": hard.astype(float), "inverse": 1.0 - soft}[kind]
        got = cuts.cost(cuts.affinity(features.astype(np.float64), 0.2), mask)
        want = golden[f"{scene}/ncut_float64_{kind}"]
        floor = abs(want - golden[f"{scene}/ncut_official_{kind}"])
        record("semantic", f"{scene} cut of {kind}", abs(got - want), floor, 1e-12)
