from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from configs import davis
from imas_jax import errors
from imas_jax.data import clips
from imas_jax.demo import render
from imas_jax.evaluation import external, mask_folders, protocol
from imas_jax.report import drawing

NAMES = ("cat-sway", "cup-pan")


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    root = tmp_path_factory.mktemp("external") / "clips"
    render.render_demo(root, 0, frames=4, size=(48, 80), names=NAMES)
    config = davis.get_config().data
    config.root, config.resolution = str(root), "48p"
    return config


def truth(data, name: str, frame: int) -> np.ndarray:
    path = Path(data.root) / "Annotations/48p" / name / f"{frame:05d}.png"
    return np.asarray(Image.open(path)) > 0


def write(data, folder: Path, spoil=lambda mask: mask) -> mask_folders.MaskFolder:
    for name in NAMES:
        for frame in range(4):
            mask = spoil(truth(data, name, frame))
            drawing.write_mask(folder / name / f"{frame:05d}.png", mask)
    return mask_folders.open_masks(folder)


def test_annotations_as_masks_score_one(data, tmp_path):
    found = external.score_folder(write(data, tmp_path), data, clips.find_clips(data))
    assert [score.name for score in found.scores] == list(NAMES)
    for which in protocol.PROTOCOLS:
        assert protocol.summarize(found.scores, which).jaccard.mean == 1.0
        assert protocol.summarize(found.scores, which).boundary.mean == 1.0
    assert found.notes == ()


def test_half_an_object_scores_half(data, tmp_path):
    def left(mask):
        columns = np.flatnonzero(mask.any(0))
        count = np.cumsum(mask.sum(0))
        cut = columns[np.searchsorted(count[columns], mask.sum() / 2)]
        half = mask.copy()
        half[:, cut + 1 :] = False
        return half

    masks = write(data, tmp_path, left)
    found = external.score_folder(masks, data, clips.find_clips(data))
    mean = protocol.summarize(found.scores, "frame_mean").jaccard.mean
    assert mean == pytest.approx(0.5, abs=0.04)


def test_masks_of_another_size_are_brought_to_the_annotations(data, tmp_path):
    masks = write(data, tmp_path, lambda mask: np.kron(mask, np.ones((3, 3))) > 0)
    found = external.score_folder(masks, data, clips.find_clips(data))
    assert protocol.summarize(found.scores, "frame_mean").jaccard.mean == 1.0


def test_scores_are_repeatable_bit_for_bit(data, tmp_path):
    masks = write(data, tmp_path, lambda mask: np.roll(mask, 2, axis=1))
    found = [
        external.score_folder(masks, data, clips.find_clips(data)) for _ in range(2)
    ]
    assert found[0] == found[1]


def test_a_missing_frame_is_refused_or_passed_over(data, tmp_path):
    write(data, tmp_path)
    (tmp_path / "cup-pan/00002.png").unlink()
    masks = mask_folders.open_masks(tmp_path)
    with pytest.raises(errors.UserError, match="cup-pan: 1 of 4 missing: 00002"):
        external.check_folder(masks, data, clips.find_clips(data))
    (line,) = external.check_folder(masks, data, clips.find_clips(data), partial=True)
    assert line == "1 of 8 annotated frames have no mask (cup-pan 00002)"
    found = external.score_folder(masks, data, clips.find_clips(data), partial=True)
    assert found.scores[1].frames == (0, 1, 3)
    assert found.scores[1].missing == ()


def test_frames_that_some_protocol_drops_may_be_missing(data, tmp_path):
    write(data, tmp_path)
    (tmp_path / "cup-pan/00000.png").unlink()
    (tmp_path / "cup-pan/00003.png").unlink()
    masks = mask_folders.open_masks(tmp_path)
    (line,) = external.check_folder(masks, data, clips.find_clips(data))
    assert line.endswith(
        "(cup-pan 00000, 00003); only what drops them is scored: official"
    )
    scores = external.score_folder(masks, data, clips.find_clips(data)).scores
    assert [score.missing for score in scores] == [(), (0, 3)]
    assert protocol.summarize(scores, "official").jaccard.mean == 1.0
    assert np.isnan(protocol.summarize(scores, "frame_mean").jaccard.mean)


def test_many_missing_masks_take_one_line(data, tmp_path):
    write(data, tmp_path)
    for name in NAMES:
        (tmp_path / name / "00003.png").unlink()
    masks = mask_folders.open_masks(tmp_path)
    assert len(external.check_folder(masks, data, clips.find_clips(data))) == 1


def test_a_data_set_without_annotations_is_refused(data, tmp_path):
    masks = write(data, tmp_path)
    bare = data.copy_and_resolve_references()
    bare.layout = "folders"
    bare.root = str(Path(data.root) / "JPEGImages/48p")
    bare.resolution = ""
    with pytest.raises(errors.UserError, match="none of 2 sequences"):
        external.check_folder(masks, bare, clips.find_clips(bare))
