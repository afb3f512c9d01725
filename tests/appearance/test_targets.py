"""Stage-2 targets: their values, resuming, and never using stale ones."""

import dataclasses
import json

import cv2
import numpy as np
import pytest

from imas_jax.appearance import crf, cuts, semantic, targets
from imas_jax.errors import UserError

QUICK = targets.TargetRecipe(crf.get_preset("authors_target:iterations=5"))
SOURCE = {"checkpoint": "abc", "channels": (1,)}


def frames_and_masks(shift: int, length: int = 3):
    """Frames of a moving bright square, and masks at a quarter, unsure of its edge."""
    frames, masks = [], []
    for t in range(length):
        left = 20 + shift + 4 * t
        frame = np.full((96, 128, 3), 40, np.uint8)
        frame[24:64, left : left + 40] = 210
        mask = np.full((24, 32), 0.05, np.float32)
        mask[4:18, left // 4 - 2 : left // 4 + 12] = 0.3
        mask[8:14, left // 4 + 2 : left // 4 + 8] = 0.95
        frames.append(frame)
        masks.append(mask)
    return frames, masks


def sequence(name: str, shift: int = 0) -> targets.MaskSequence:
    return targets.MaskSequence(name, *frames_and_masks(shift))


def untouchable(name: str) -> targets.MaskSequence:
    def fail():
        raise AssertionError(f"{name} was drawn from")
        yield

    return targets.MaskSequence(name, fail(), fail())


def truth(frames) -> np.ndarray:
    return np.stack([frame[::4, ::4, 0] == 210 for frame in frames])


def test_targets_are_masks_aligned_with_the_frames(tmp_path):
    summary = targets.make_targets(
        tmp_path, [sequence("a"), sequence("b", 8)], SOURCE, QUICK, workers=1
    )
    for name, shift in (("a", 0), ("b", 8)):
        got = targets.read(tmp_path, name, summary.provenance)
        assert got.dtype == np.uint8
        np.testing.assert_array_equal(
            got, 255 * truth(frames_and_masks(shift)[0]).astype(np.uint8)
        )
    assert list(summary.sequences) == ["a", "b"]
    # 0.3 / 0.7 reads as background: the CRF adds a square of 10 less its core of 6.
    assert summary.total().changed_by_crf == pytest.approx(64 / (24 * 32))
    assert summary.total().frames == 6
    assert summary.total().changed_by_constraint == 0
    json.dumps(summary.to_json())


def test_frame_resolution_averages_back_to_the_mask(tmp_path):
    recipe = dataclasses.replace(QUICK, resolution="frame")
    frames, masks = frames_and_masks(2, length=1)
    targets.make_targets(
        tmp_path, [targets.MaskSequence("a", frames, masks)], SOURCE, recipe, workers=1
    )
    got = targets.read(tmp_path, "a")[0]
    want = (frames[0][..., 0] == 210).astype(np.float32) * 255
    want = cv2.resize(want, (32, 24), interpolation=cv2.INTER_AREA)
    np.testing.assert_allclose(got, want, atol=1)
    assert len(np.unique(got)) > 2  # edges half way into a mask pixel stay half


def test_the_pool_makes_the_same_targets(tmp_path):
    sequences = [sequence("a"), sequence("b", 8)]
    targets.make_targets(tmp_path / "one", sequences, SOURCE, QUICK, workers=1)
    targets.make_targets(tmp_path / "two", sequences, SOURCE, QUICK, workers=2)
    for name in "ab":
        np.testing.assert_array_equal(
            targets.read(tmp_path / "one", name),
            targets.read(tmp_path / "two", name),
        )


def test_a_killed_run_goes_on_where_it_stopped(tmp_path):
    def killed():
        yield sequence("a")
        yield sequence("b")
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        targets.make_targets(tmp_path, killed(), SOURCE, QUICK, workers=1)
    assert not list(tmp_path.glob(".*"))
    summary = targets.make_targets(
        tmp_path, [untouchable("a"), sequence("b")], SOURCE, QUICK, workers=1
    )
    assert summary.reused == ("a",)
    assert list(summary.sequences) == ["a", "b"]
    assert summary.sequences["a"] == summary.sequences["b"]


@pytest.mark.parametrize(
    ("source", "recipe"),
    [
        ({**SOURCE, "checkpoint": "def"}, QUICK),
        ({**SOURCE, "channels": (2,)}, QUICK),
        (SOURCE, targets.TargetRecipe(crf.get_preset("gwm:iterations=5"))),
        (SOURCE, dataclasses.replace(QUICK, resolution="frame")),
    ],
)
def test_targets_made_from_anything_else_are_never_used(tmp_path, source, recipe):
    targets.make_targets(tmp_path, [sequence("a")], SOURCE, QUICK, workers=1)
    with pytest.raises(UserError, match="made from something else"):
        targets.read(tmp_path, "a", targets.full_provenance(source, recipe))
    summary = targets.make_targets(tmp_path, [sequence("a")], source, recipe, workers=1)
    assert summary.reused == ()
    targets.read(tmp_path, "a", summary.provenance)


def test_a_truncated_file_is_made_again(tmp_path):
    summary = targets.make_targets(tmp_path, [sequence("a")], SOURCE, QUICK, workers=1)
    before = targets.read(tmp_path, "a")
    file = tmp_path / "a.npz"
    file.write_bytes(file.read_bytes()[:100])
    with pytest.raises(UserError, match="no usable targets"):
        targets.read(tmp_path, "a", summary.provenance)
    again = targets.make_targets(tmp_path, [sequence("a")], SOURCE, QUICK, workers=1)
    assert again.reused == ()
    np.testing.assert_array_equal(targets.read(tmp_path, "a"), before)


def colour_features(frame: np.ndarray) -> np.ndarray:
    """Tell object, its reflection and ground apart, on every eighth pixel."""
    red = frame[::8, ::8, 0] == 210
    blue = frame[::8, ::8, 2] == 211
    kinds = [red & ~blue, red & blue, ~red]
    return np.stack(kinds, axis=-1).astype(np.float32)


def colours(frames):
    return map(colour_features, frames)


def with_reflection() -> targets.MaskSequence:
    """Return a sequence whose masks hold the object and what it is mirrored in."""
    frames, _ = frames_and_masks(0)
    masks = list(truth(frames) * np.float32(0.95))
    for frame in frames:
        where = frame[:64, :, 0] == 210
        frame[:64][where & (np.arange(64) >= 56)[:, None], 2] = 211
    return targets.MaskSequence("a", frames, masks)


@pytest.mark.parametrize("dilation", [1, 3])
def test_the_dilation_is_pixels_of_the_mask_wherever_the_crf_runs(tmp_path, dilation):
    like = semantic.SemanticConstraint(colours, "colour", 0.5, dilation)
    frame = dataclasses.replace(QUICK, resolution="frame")
    made = {}
    for name, recipe in (
        ("free", frame),
        ("bound", dataclasses.replace(frame, constraint=like)),
    ):
        folder = tmp_path / name
        targets.make_targets(folder, [with_reflection()], SOURCE, recipe, workers=1)
        made[name] = targets.read(folder, "a")
    for t, (image, mask) in enumerate(
        zip(with_reflection().frames, with_reflection().masks, strict=True)
    ):
        seen = semantic.mask_similarity(colour_features(image), mask[..., None])
        near = semantic.dilate(seen[..., 0] > 0.5, dilation)
        assert made["free"][t][~near].any()
        np.testing.assert_array_equal(made["bound"][t], made["free"][t] * near)


def test_the_constraint_removes_what_looks_different(tmp_path):
    with_it = dataclasses.replace(
        QUICK, constraint=semantic.SemanticConstraint(colours, "colour", 0.5, 3)
    )
    a = with_reflection()
    plain = targets.make_targets(tmp_path / "plain", [a], SOURCE, QUICK, workers=1)
    less = targets.make_targets(tmp_path / "less", [a], SOURCE, with_it, workers=1)
    full = targets.read(tmp_path / "plain", "a")
    part = targets.read(tmp_path / "less", "a")
    assert (part <= full).all()
    assert not part[:, 15].any()
    assert full[:, 15].any()
    removed = np.mean(part != full)
    assert less.total().changed_by_constraint == pytest.approx(removed)
    assert less.total().discarded == 0
    assert plain.provenance != less.provenance


def left_half(frame: np.ndarray) -> np.ndarray:
    """Tell the bright square's left half from all else, on every eighth pixel."""
    bright = frame[::8, ::8, 0] == 210
    left = bright & (bright.cumsum(axis=1) <= 2)
    return np.stack([left, ~left], axis=-1).astype(np.float32)


def test_an_improved_cut_removes_what_is_tied_to_the_rest(tmp_path):
    frames, _ = frames_and_masks(0)
    clip = targets.MaskSequence("a", frames, list(truth(frames) * np.float32(0.95)))
    cut = cuts.CutConstraint(lambda seen: map(left_half, seen), "left", 0.5)
    recipe = dataclasses.replace(QUICK, constraint=cut)
    targets.make_targets(tmp_path / "plain", [clip], SOURCE, QUICK, workers=1)
    less = targets.make_targets(tmp_path / "cut", [clip], SOURCE, recipe, workers=1)
    full, part = (targets.read(tmp_path / name, "a") for name in ("plain", "cut"))
    assert (part <= full).all()
    assert np.mean(part > 0) < 0.7 * np.mean(full > 0)
    assert less.total().changed_by_constraint == pytest.approx(np.mean(part != full))
    assert less.provenance["constraint"]["cut"] == "left"
    strict = dataclasses.replace(cut, disagreement=0.01)
    recipe = dataclasses.replace(QUICK, constraint=strict)
    same = targets.make_targets(tmp_path / "cut", [clip], SOURCE, recipe, workers=1)
    assert same.reused == ()  # made from something else
    assert same.total().discarded == len(frames)
    np.testing.assert_array_equal(targets.read(tmp_path / "cut", "a"), full)


def test_a_match_as_wide_as_the_frame_leaves_the_target_alone(tmp_path):
    anything = semantic.SemanticConstraint(
        lambda frames: (np.ones((12, 16, 2), np.float32) for _ in frames),
        "ones",
        0.5,
        3,
    )
    recipe = dataclasses.replace(QUICK, constraint=anything)
    summary = targets.make_targets(tmp_path, [sequence("a")], SOURCE, recipe, workers=1)
    assert summary.total().discarded == 3
    assert summary.total().changed_by_constraint == 0


def test_empty_masks_give_empty_targets_and_are_counted(tmp_path):
    frames, masks = frames_and_masks(0)
    empty = targets.MaskSequence("a", frames, [mask * 0 for mask in masks])
    summary = targets.make_targets(tmp_path, [empty], SOURCE, QUICK, workers=1)
    assert summary.total().empty == 3
    assert not targets.read(tmp_path, "a").any()


def test_a_process_without_a_clip_makes_none_and_missing_targets_are_refused(tmp_path):
    assert targets.make_targets(tmp_path, [], SOURCE, QUICK, workers=1).sequences == {}
    with pytest.raises(UserError, match="stage=align"):
        targets.read(tmp_path, "a")
