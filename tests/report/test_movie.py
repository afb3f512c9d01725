import errno

import av
import numpy as np
import pytest

from imas_jax.errors import UserError
from imas_jax.report import movie


def pictures(count=5, size=(41, 61)):
    """Return flat colours: red rises, blue falls."""
    return [
        np.full((*size, 3), (40 * i, 90, 255 - 50 * i), np.uint8) for i in range(count)
    ]


def test_a_video_is_what_browsers_play(tmp_path):
    path = tmp_path / "clips/a.mp4"
    movie.write_video(path, iter(pictures()), rate=29.97)
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        assert stream.codec_context.name == "h264"
        assert stream.codec_context.pix_fmt == "yuv420p"
        assert (stream.height, stream.width) == (42, 62)
        assert float(stream.average_rate) == pytest.approx(29.97, abs=1e-3)
    # The index stands before the pictures, so playing starts while it loads.
    data = path.read_bytes()
    assert data.index(b"moov") < data.index(b"mdat")
    assert [p.name for p in path.parent.iterdir()] == ["a.mp4"]


def test_every_frame_is_there_with_its_colour(tmp_path):
    movie.write_video(tmp_path / "a.mp4", iter(pictures()))
    with av.open(str(tmp_path / "a.mp4")) as container:
        frames = [f.to_ndarray(format="rgb24") for f in container.decode(video=0)]
    assert len(frames) == 5
    for frame, picture in zip(frames, pictures(), strict=True):
        np.testing.assert_allclose(frame.mean(axis=(0, 1)), picture[0, 0], atol=4)


def test_a_video_of_nothing_or_of_changing_size_is_refused(tmp_path):
    with pytest.raises(ValueError, match="no pictures"):
        movie.write_video(tmp_path / "a.mp4", [])
    changing = pictures(1) + pictures(1, (20, 20))
    with pytest.raises(ValueError, match="among pictures"):
        movie.write_video(tmp_path / "a.mp4", changing)
    assert not (tmp_path / "a.mp4").exists()


def test_a_full_disk_is_told_and_leaves_no_video(tmp_path, monkeypatch):
    def full(*args, **kwargs):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(movie.av, "open", full)
    with pytest.raises(UserError, match="No space left"):
        movie.write_video(tmp_path / "a.mp4", pictures())
    assert not (tmp_path / "a.mp4").exists()
