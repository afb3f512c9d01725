import cv2
import numpy as np
import pytest
from clip_writer import config, moving_frames, save, texture, write_clip

from imas_jax.data import order, stills
from imas_jax.errors import UserError


def source(found, tmp_path, batch_size=4):
    counted = order.Order(len(found.pairs), batch_size, 0, "pretrain")
    return stills.Source(found, counted, tmp_path / "frames")


@pytest.fixture
def loose(tmp_path):
    """Images of many sizes in folders, and annotations beside them."""
    root = tmp_path / "pictures"
    for number, size in enumerate([(40, 60), (80, 120), (50, 40), (44, 66), (90, 30)]):
        save(root / f"kind{number % 2}" / f"{number}.png", texture(size, number))
    save(root / "Annotations" / "0.png", texture((40, 60)))
    (root / "notes.txt").write_text("no image")
    return root


def test_loose_images_of_any_size_come_to_one_and_annotations_stay_out(loose):
    found = stills.find(config(loose, "auto").data, 32, 0)
    assert [clip.name for clip in found.clips] == [
        *("kind0/0.png", "kind0/2.png", "kind0/4.png", "kind1/1.png", "kind1/3.png")
    ]
    assert found.size == (32, 48)  # most are 3:2
    for number in range(5):
        assert found.read(number, 0).shape == (32, 48, 3)


def test_an_image_of_another_aspect_loses_what_stands_over_at_both_sides():
    image = np.repeat(np.arange(90, dtype=np.uint8)[:, None, None], 30, 1)
    image = np.repeat(image, 3, 2)
    got = stills.cover(image, (20, 30))
    np.testing.assert_array_equal(got[..., 0], image[35:55, :, 0])


def test_frames_are_never_stored_larger_than_files_are(loose):
    assert stills.find(config(loose, "auto").data, 500, 0).size == (40, 60)


def test_what_does_not_fit_into_memory_gives_the_same_batches(
    tmp_path, loose, monkeypatch
):
    frames = moving_frames(5, (48, 64))
    path = tmp_path / "films" / "a.avi"
    path.parent.mkdir()
    film = cv2.VideoWriter(str(path), cv2.VideoWriter_fourcc(*"MJPG"), 10, (64, 48))
    for frame in frames:
        film.write(frame[..., ::-1])
    film.release()
    for root in (loose, path.parent):
        found = stills.find(config(root, "auto").data, 32, 0)
        held = source(found, tmp_path)
        with monkeypatch.context() as patched:
            patched.setattr(stills, "HELD", 0)
            streamed = [source(found, tmp_path) for _ in range(2)]
        for step in (0, 3):
            wanted = held.batch(step).frames
            for one in streamed:
                np.testing.assert_array_equal(one.batch(step).frames, wanted)
    assert len(list((tmp_path / "frames").iterdir())) == 1  # the video, decoded once


def test_a_batch_shows_a_frame_twice_and_follows_the_step(loose, tmp_path):
    made = source(stills.find(config(loose, "auto").data, 32, 0), tmp_path)
    first = made.batch(0)
    np.testing.assert_array_equal(first.frames[:, 0], first.frames[:, 1])
    assert len(set(first.pair)) == 4
    following = next(made.batches(7))
    np.testing.assert_array_equal(following.frames, made.batch(7).frames)


def test_neighbours_are_pairs_both_ways_within_a_clip(tmp_path):
    for name in "ab":
        write_clip(tmp_path / name, 4)
    found = stills.find(config(tmp_path).data, 32, 2)
    gaps = [pair.second - pair.first for pair in found.pairs]
    assert {gap: gaps.count(gap) for gap in set(gaps)} == {
        **{0: 8, 1: 6, -1: 6},
        **{2: 4, -2: 4},
    }
    pair = found.pairs[-1]
    made = source(found, tmp_path)._pair(pair)
    np.testing.assert_array_equal(made[1], found.read(pair.clip, pair.second))


def test_what_cannot_be_learned_from_is_told(loose, tmp_path):
    with pytest.raises(UserError, match=r"(?s)loose images.*layout=folders"):
        stills.find(config(loose, "auto").data, 32, 1)
    save(tmp_path / "one" / "0.png", texture((40, 60)))
    with pytest.raises(UserError, match="holds 1 image"):
        stills.find(config(tmp_path / "one", "auto").data, 32, 0)
    (loose / "kind0" / "0.png").write_bytes(b"")
    with pytest.raises(UserError, match=r"(?s)0\.png.*empty"):
        stills.find(config(loose, "auto").data, 32, 0)
    (tmp_path / "none").mkdir()
    with pytest.raises(UserError, match="no image"):
        stills.find(config(tmp_path / "none", "images").data, 32, 0)
