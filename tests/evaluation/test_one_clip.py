"""J and F of one clip's masks, from arrays and from folders."""

import numpy as np
import pytest
from PIL import Image

from imas_jax.errors import UserError
from imas_jax.evaluation import metrics, one_clip
from imas_jax.report import drawing

SIZE, FRAMES = (24, 32), 5


def moving(shift=0):
    masks = np.zeros((FRAMES, *SIZE), bool)
    for t in range(FRAMES):
        masks[t, 6:18, 3 * t + shift : 3 * t + shift + 10] = True
    return list(masks)


def write(folder, masks, first=0):
    for t, mask in enumerate(masks, start=first):
        if mask is not None:
            drawing.write_mask(folder / f"{t:05d}.png", mask)
    return folder


def test_arrays_and_folders_score_the_same(tmp_path):
    ours, truth = moving(2), moving()
    expected = [metrics.jaccard(a, b) for a, b in zip(ours, truth, strict=True)]
    masks, annotations = write(tmp_path / "a", ours), write(tmp_path / "b", truth)
    told = one_clip.score(iter(ours), iter(truth))
    assert told.by_frame.jaccard == tuple(expected)
    assert told.jaccard == pytest.approx(np.mean(expected))
    assert told.boundary == pytest.approx(
        np.mean([metrics.boundary_f(a, b) for a, b in zip(ours, truth, strict=True)])
    )
    for one, other in ((masks, annotations), (masks, truth), (ours, str(annotations))):
        assert one_clip.score(one, other) == told


def test_protocols_average_other_frames():
    ours, truth = moving(2), moving()
    truth[0] = ours[0]
    whole, official = (
        one_clip.score(ours, truth, which) for which in ("frame_mean", "official")
    )
    assert (whole.frames, official.frames) == (FRAMES, FRAMES - 2)
    assert official.jaccard < whole.jaccard


def test_frames_without_annotation_are_not_scored(tmp_path):
    ours, truth = moving(2), [None, None, moving()[2], None, None]
    expected = one_clip.score(ours, truth)
    assert (expected.frames, expected.by_frame.frames) == (1, (2,))
    annotated = write(tmp_path / "b", truth)
    assert one_clip.score(write(tmp_path / "a", ours), annotated) == expected
    with pytest.raises(UserError, match="0 annotated frame"):
        one_clip.score(ours, [None] * FRAMES)


def test_void_and_every_object_of_an_annotation_count_as_in_a_data_set(tmp_path):
    ours = moving()
    labels = np.array(ours, np.uint8)
    labels[:, 6:10] *= 2  # a second object
    labels[:, :3] = 255  # void, where the mask below has some too
    (tmp_path / "b").mkdir()
    for t in range(FRAMES):
        image = Image.fromarray(labels[t])
        image.putpalette(drawing.davis_palette().tobytes())
        image.save(tmp_path / "b" / f"{t:05d}.png")
        ours[t][:2] = True
    assert one_clip.score(ours, tmp_path / "b").jaccard == 1.0


@pytest.mark.parametrize(
    ("ours", "truth", "said"),
    [
        (moving()[:3], moving(), "more annotations than the other side's 3"),
        (moving(), moving()[:3], "more masks than the other side's 3"),
        ([m.astype(np.uint8) for m in moving()], moving(), "mask > 0"),
        ([m.astype(np.float32) for m in moving()], moving(), "mask > 0.5"),
        ([m[..., None] for m in moving()], moving(), "without a channel axis"),
        (moving(), [m * 255 for m in moving()], "annotation 0 is int64"),
        ([m[:20] for m in moving()], moving(), "resize the mask"),
    ],
)
@pytest.mark.usefixtures("unchecked")
def test_what_cannot_be_compared_is_refused(ours, truth, said):
    with pytest.raises(UserError, match=said):
        one_clip.score(ours, truth)


@pytest.mark.usefixtures("unchecked")
def test_an_unknown_protocol_is_refused_with_those_that_are():
    with pytest.raises(UserError, match="one of official, sequence_mean, frame_mean"):
        one_clip.score(moving(), moving(), "davis")


def test_folders_that_do_not_match_are_refused(tmp_path):
    masks, truth = write(tmp_path / "a", moving()), write(tmp_path / "b", moving(), 2)
    with pytest.raises(UserError, match=r"2 of 5 annotations in .* 00005, 00006"):
        one_clip.score(masks, truth)
    with pytest.raises(UserError, match="no annotation in"):
        one_clip.score(masks, tmp_path / "none")
    with pytest.raises(UserError, match="no masks in"):
        one_clip.score(tmp_path / "none", truth)
    with pytest.raises(UserError, match="masks of 2 clips"):
        one_clip.score(tmp_path, truth)
