import struct
import threading
from fractions import Fraction
from pathlib import Path

import av
import clip_writer
import cv2
import numpy as np
import pytest
from PIL import Image

from imas_jax import errors
from imas_jax.data import clips, video

FRAMES = clip_writer.moving_frames(12)


def write_video(path: Path, codec: str = "MJPG", frames=FRAMES) -> Path:
    h, w = frames[0].shape[:2]
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*codec), 25, (w, h))
    for frame in frames:
        writer.write(cv2.cvtColor(frame, cv2.COLOR_RGB2BGR))
    writer.release()
    return path


def write_film(path: Path, codec: str, pixels: str, times=None, frames=FRAMES) -> Path:
    """Write with PyAV; `times` are milliseconds, 40 apart unless given."""
    h, w = frames[0].shape[:2]
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, 25)
        stream.height, stream.width, stream.pix_fmt = h, w, pixels
        stream.codec_context.time_base = Fraction(1, 1000)
        for number, frame in enumerate(frames):
            picture = av.VideoFrame.from_ndarray(np.ascontiguousarray(frame), "rgb24")
            picture.pts = times[number] if times else 40 * number
            picture.time_base = Fraction(1, 1000)
            container.mux(stream.encode(picture))
        container.mux(stream.encode())
    return path


@pytest.mark.parametrize(
    ("name", "codec"),
    [
        ("a.avi", "MJPG"),
        ("a.mp4", "mp4v"),
        ("a.mp4", "libx264"),
        ("a.mov", "libx264"),
        ("a.webm", "libvpx-vp9"),
    ],
)
def test_frames_of_a_video_file_come_in_order(tmp_path, name, codec):
    path = tmp_path / name
    if codec.startswith("lib"):
        write_film(path, codec, "yuv420p")
    else:
        write_video(path, codec)
    (clip,) = clips.find_clips(clip_writer.config(path, "auto").data)
    assert (clip.name, len(clip.frames), clip.size) == ("a", 12, (64, 96))
    for t in (0, 1, 2, 7, 3, 11, 0):  # steps back and forth
        errors_to = [np.abs(clip.read(t).astype(int) - f).mean() for f in FRAMES]
        assert int(np.argmin(errors_to)) == t


def test_a_gif_is_a_video(tmp_path):
    images = [Image.fromarray(f) for f in FRAMES[:5]]
    images[0].save(tmp_path / "a.gif", save_all=True, append_images=images[1:])
    (clip,) = clips.find_clips(clip_writer.config(tmp_path / "a.gif", "video").data)
    assert len(clip.frames) == 5
    assert np.abs(clip.read(4).astype(int) - FRAMES[4]).mean() < 12


def test_every_frame_counts_once_whatever_its_time(tmp_path):
    times = [0, 40, 50, 300, 301, 1000, 1040, 1080, 3000, 3010, 3020, 9000]
    path = write_film(tmp_path / "phone.mp4", "libx264", "yuv420p", times)
    (clip,) = clips.find_clips(clip_writer.config(path, "auto").data)
    assert len(clip.frames) == 12
    for t in range(12):
        errors_to = [np.abs(clip.read(t).astype(int) - f).mean() for f in FRAMES]
        assert int(np.argmin(errors_to)) == t
    assert 1 <= clip.rate <= 240


def test_odd_sides_of_a_film_are_kept(tmp_path):
    frames = [f[:63, :95] for f in FRAMES]
    path = write_film(tmp_path / "a.mkv", "ffv1", "bgr0", frames=frames)
    (clip,) = clips.find_clips(clip_writer.config(path, "auto").data)
    assert clip.size == (63, 95)
    assert (clip.read(3) == frames[3]).all()


def test_odd_sides_are_kept(tmp_path):
    images = [Image.fromarray(f[:63, :95]) for f in FRAMES]
    images[0].save(tmp_path / "a.gif", save_all=True, append_images=images[1:])
    assert video.probe(tmp_path / "a.gif").size == (63, 95)


def test_rotation_metadata_turns_frames_upright(tmp_path):
    path = write_video(tmp_path / "a.mp4", "mp4v")
    data = bytearray(path.read_bytes())
    matrix = data.index(b"tkhd") + 44  # ISO 14496-12: nine words, 90 degrees clockwise
    words = (0, 1 << 16, 0, -(1 << 16), 0, 0, 64 << 16, 0, 1 << 30)
    data[matrix : matrix + 36] = struct.pack(">9i", *words)
    path.write_bytes(bytes(data))
    assert video.probe(path).size == (96, 64)
    frame = video.VideoReader(path).read(0)
    assert np.abs(frame.astype(int) - np.rot90(FRAMES[0], -1)).mean() < 12


def test_threads_may_share_a_reader(tmp_path):
    reader = video.VideoReader(write_video(tmp_path / "a.avi"))
    single = [reader.read(t) for t in range(12)]
    seen: dict[int, np.ndarray] = {}

    def work(start: int) -> None:
        for t in range(start, 12, 3):
            seen[t] = reader.read(t)

    threads = [threading.Thread(target=work, args=(i,)) for i in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert all((seen[t] == single[t]).all() for t in range(12))


def test_a_cut_file_counts_what_decodes(tmp_path):
    path = write_video(tmp_path / "a.avi")
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    info = video.probe(path)
    assert 2 <= info.count < 12


@pytest.mark.parametrize("content", [b"", b"this is no video" * 100])
def test_a_file_without_frames_is_refused_by_name(tmp_path, content):
    path = tmp_path / "a.mp4"
    path.write_bytes(content)
    with pytest.raises(errors.UserError, match="holds no frame") as told:
        clips.find_clips(clip_writer.config(path, "video").data)
    assert str(path) in told.value.found


def test_a_one_frame_video_is_refused(tmp_path):
    path = write_video(tmp_path / "a.avi", frames=FRAMES[:1])
    with pytest.raises(errors.UserError, match=r"1 frame\(s\)"):
        clips.find_clips(clip_writer.config(path, "video").data)


def test_reading_past_the_end_is_told(tmp_path):
    reader = video.VideoReader(write_video(tmp_path / "a.avi"))
    with pytest.raises(errors.UserError, match="ends before frame 12"):
        reader.read(12)


def test_the_fingerprint_changes_with_the_file(tmp_path):
    first = video.VideoReader(write_video(tmp_path / "a.avi")).fingerprint()
    again = video.VideoReader(write_video(tmp_path / "b.avi")).fingerprint()
    other = write_video(tmp_path / "c.avi", frames=FRAMES[::-1])
    assert first == again
    assert first != video.VideoReader(other).fingerprint()


def test_a_folder_of_videos_is_a_clip_for_each(tmp_path):
    write_video(tmp_path / "b 10.avi")
    write_video(tmp_path / "b 9.mp4", "mp4v", FRAMES[:5])
    (tmp_path / "notes.txt").write_text("no film")
    config = clip_writer.config(tmp_path, "auto")
    found = clips.find_clips(config.data)
    assert [(clip.name, len(clip.frames)) for clip in found] == [
        ("b 9", 5),
        ("b 10", 12),
    ]
    config.data.sequences = ("b 10",)
    (alone,) = clips.find_clips(config.data)
    np.testing.assert_array_equal(alone.read(3), found[1].read(3))


def test_all_that_is_wrong_with_a_folder_of_videos_is_told_at_once(tmp_path):
    write_video(tmp_path / "sound.avi")
    write_video(tmp_path / "still.avi", frames=FRAMES[:1])
    (tmp_path / "torn.mp4").write_bytes(b"no film")
    config = clip_writer.config(tmp_path, "videos").data
    with pytest.raises(errors.UserError) as refusal:
        clips.find_clips(config)
    assert "still.avi" in str(refusal.value)
    assert "torn.mp4" in str(refusal.value)
    assert "sound.avi" not in str(refusal.value)
    write_video(tmp_path / "still.mp4", "mp4v")
    with pytest.raises(errors.UserError, match="one name: still"):
        clips.find_clips(config)


@pytest.mark.parametrize("name", ["50%d off.avi", "a:b.avi", "-i.avi", "new\nline.avi"])
def test_odd_names_of_video_files_are_read(tmp_path, monkeypatch, name):
    write_video(tmp_path / "film.avi").rename(tmp_path / name)
    monkeypatch.chdir(tmp_path)
    (clip,) = clips.find_clips(clip_writer.config(name, "auto").data)
    assert len(clip.frames) == len(FRAMES)


def test_a_gif_too_large_to_decode_is_refused(tmp_path):
    path = tmp_path / "bomb.gif"
    Image.fromarray(FRAMES[0]).save(path)
    data = bytearray(path.read_bytes())
    data[6:10] = struct.pack("<HH", 60_000, 60_000)
    path.write_bytes(bytes(data))
    with pytest.raises(errors.UserError, match="no frame that can be decoded"):
        clips.find_clips(clip_writer.config(path, "auto").data)


def test_sound_alone_is_no_video(tmp_path):
    path = tmp_path / "song.mp4"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("aac", 48_000)
        stream.layout = "mono"
        silence = np.zeros((1, 4800), np.float32)
        sound = av.AudioFrame.from_ndarray(silence, "fltp", "mono")
        sound.sample_rate = 48_000
        container.mux(stream.encode(sound))
        container.mux(stream.encode())
    with pytest.raises(errors.UserError, match="no frame that can be decoded"):
        clips.find_clips(clip_writer.config(path, "auto").data)
