import errno
import os
import shutil
from pathlib import Path

import clip_writer
import numpy as np
import pytest

from imas_jax import errors
from imas_jax.data import clips


def find(root: Path | str, layout: str = "folders", **data) -> tuple[clips.Clip, ...]:
    return clips.find_clips(clip_writer.config(root, layout, **data).data)


def refusal(root: Path | str, layout: str = "folders", **data) -> str:
    with pytest.raises(errors.UserError) as told:
        find(root, layout, **data)
    return str(told.value)


def test_a_folder_of_folders_gives_one_clip_each(tmp_path):
    clip_writer.write_clip(tmp_path / "dog", 3)
    clip_writer.write_clip(tmp_path / "cat", 5, suffix=".jpg")
    found = find(tmp_path)
    assert [(c.name, len(c.frames), c.size) for c in found] == [
        ("cat", 5, (64, 96)),
        ("dog", 3, (64, 96)),
    ]
    assert [f.name for f in found[1].frames] == ["00000", "00001", "00002"]
    expected = clip_writer.moving_frames(3)[2]
    assert (found[1].read(2) == expected).all()


def test_one_folder_is_one_clip_under_its_own_name(tmp_path):
    clip_writer.write_clip(tmp_path / "my dog ünï", 3)
    for layout in ("folder", "auto"):
        (clip,) = find(tmp_path / "my dog ünï", layout)
        assert clip.name == "my dog ünï"
        assert clip.read(0).shape == (64, 96, 3)


def test_unpadded_numbers_keep_their_order(tmp_path):
    for t in (8, 9, 10, 11):
        clip_writer.save(tmp_path / f"shot {t}.png", clip_writer.texture((32, 32), t))
    (clip,) = find(tmp_path, "folder")
    assert [f.name for f in clip.frames] == ["shot 8", "shot 9", "shot 10", "shot 11"]


def test_a_clip_may_mix_types_of_image(tmp_path):
    paths = clip_writer.write_clip(tmp_path, 4)
    clip_writer.save(paths[1].with_suffix(".jpg"), clip_writer.moving_frames(4)[1])
    paths[1].unlink()
    (clip,) = find(tmp_path, "folder")
    assert [f.path.suffix for f in clip.frames] == [".png", ".jpg", ".png", ".png"]
    assert np.abs(clip.read(1) - clip_writer.moving_frames(4)[1].astype(int)).mean() < 9


def test_constant_steps_in_the_numbers_are_no_gap(tmp_path):
    for t in (0, 5, 10):
        clip_writer.save(tmp_path / f"{t:05d}.png", clip_writer.texture((32, 32), t))
    assert len(find(tmp_path, "folder")[0].frames) == 3


def test_stray_and_hidden_files_are_left_alone(tmp_path):
    clip_writer.write_clip(tmp_path / "dog", 3)
    (tmp_path / "dog" / "notes.txt").write_text("hello")
    (tmp_path / "dog" / "._00001.png").write_bytes(b"\0")
    (tmp_path / ".cache").mkdir()
    (clip,) = find(tmp_path)
    assert len(clip.frames) == 3


def test_data_size_resizes_what_read_returns(tmp_path):
    clip_writer.write_clip(tmp_path / "dog", 2)
    (clip,) = find(tmp_path, size=(32, 48))
    assert (clip.size, clip.native_size) == ((32, 48), (64, 96))
    frame = clip_writer.moving_frames(2)[0].astype(float)
    means = frame.reshape(32, 2, 48, 2, 3).mean(axis=(1, 3))
    assert np.abs(clip.read(0) - means).max() <= 0.5


def write_davis(root: Path, names=("bear", "bus"), count: int = 3) -> None:
    lines = []
    for name in names:
        paths = clip_writer.write_clip(root / "JPEGImages/demo" / name, count, ".jpg")
        lines += [
            f"/JPEGImages/demo/{name}/{p.name} /Annotations/demo/{name}/{p.stem}.png "
            for p in paths
        ]
    (root / "ImageSets/demo").mkdir(parents=True)
    (root / "ImageSets/demo/trainval.txt").write_text("\n".join(lines) + "\n")
    (root / "ImageSets/demo/val.txt").write_text(f"{names[0]}\n")


def test_davis_image_sets_of_frames_and_of_names_are_read(tmp_path):
    write_davis(tmp_path)
    data = clip_writer.config(tmp_path, "davis").data
    assert [c.name for c in clips.find_clips(data)] == ["bear", "bus"]
    assert [c.name for c in clips.find_clips(data, "val")] == ["bear"]
    assert [c.name for c in clips.find_clips(data, "")] == ["bear", "bus"]


def test_a_frame_the_image_set_lists_must_exist(tmp_path):
    write_davis(tmp_path, count=4)
    lost = tmp_path / "JPEGImages/demo/bus/00003.jpg"
    lost.unlink()
    assert str(lost) in refusal(tmp_path, "davis")
    found = find(tmp_path, "davis", partial=True)
    assert [len(c.frames) for c in found] == [4, 3]


def test_an_unknown_split_or_sequence_is_told_with_near_names(tmp_path):
    write_davis(tmp_path)
    data = clip_writer.config(tmp_path, "davis").data
    with pytest.raises(errors.UserError, match="trainval"):
        clips.find_clips(data, "tranval")
    assert "did you mean bear?" in refusal(tmp_path, "davis", sequences=("baer",))
    chosen = find(tmp_path, "davis", sequences=("bus",))
    assert [c.name for c in chosen] == ["bus"]


def test_published_counts_are_asked_only_of_published_resolutions(tmp_path):
    write_davis(tmp_path)
    for kind in ("JPEGImages", "ImageSets"):
        shutil.move(tmp_path / kind / "demo", tmp_path / kind / "480p")
    listing = tmp_path / "ImageSets/480p/trainval.txt"
    listing.write_text(listing.read_text().replace("demo", "480p"))
    assert "2 sequences, 6 frames; published are 50" in refusal(tmp_path, "davis")
    assert len(find(tmp_path, "davis", partial=True)) == 2


def test_seven_defects_in_fifty_sequences_are_listed_at_once(tmp_path):
    for number in range(50):
        clip_writer.write_clip(tmp_path / f"clip{number:02d}", 4, size=(48, 64))
    empty = tmp_path / "clip03/00001.png"
    empty.write_bytes(b"")
    cut = tmp_path / "clip07/00002.png"
    cut.write_bytes(cut.read_bytes()[:3000])
    wrong_size = tmp_path / "clip11/00003.png"
    clip_writer.save(wrong_size, clip_writer.texture((50, 64)))
    (tmp_path / "clip19/00002.png").unlink()
    twice = tmp_path / "clip23/1.png"
    shutil.copy(tmp_path / "clip23/00001.png", twice)
    for t in range(1, 4):
        (tmp_path / f"clip31/{t:05d}.png").unlink()
    (tmp_path / "clip44/00000.png").write_bytes(b"no picture at all")
    told = refusal(tmp_path)
    assert "7 problem(s)" in told
    for words in (
        f"{empty}: is empty (0 bytes)",
        f"{cut}: is truncated or damaged",
        f"{wrong_size}: is (50, 64) (h, w), the clip is (48, 64)",
        "clip19: between 00001.png and 00003.png: 1 frame(s) missing",
        "is the same frame as",
        "clip31: 1 frame(s); motion needs two",
        f"{tmp_path / 'clip44/00000.png'}: is not an image",
    ):
        assert words in told


def test_names_that_later_stages_cannot_write_are_refused_with_the_limit(tmp_path):
    byte = os.fsdecode(b"dog\xff")
    long_clip, long_frame = "c" * 251, "f" * 240
    for name in (byte, long_clip, "fine"):
        clip_writer.write_clip(tmp_path / name, 2)
    clip_writer.save(
        tmp_path / "fine" / f"{long_frame}.png", clip_writer.texture((64, 96))
    )
    told = refusal(tmp_path)
    assert "3 problem(s)" in told
    assert "the name is not UTF-8" in told
    assert told.count("bytes; no more than 200") == 2
    told.encode()  # can be shown and written


@pytest.mark.parametrize("name", ["a\nb", "q\"'`", "100%d", "-rf", "é" * 100])
def test_odd_names_are_fine(tmp_path, name):
    clip_writer.write_clip(tmp_path / name, 2)
    assert [clip.name for clip in find(tmp_path)] == [name]


def test_a_video_file_whose_name_cannot_be_written_is_refused(tmp_path):
    (tmp_path / ("f" * 230 + ".mp4")).write_bytes(b"film")
    assert "no more than 200" in refusal(tmp_path, "videos")


@pytest.mark.parametrize("layout", ["folders", "davis"])
def test_what_is_no_file_is_named_and_never_waited_for(tmp_path, layout):
    folder = tmp_path / ("JPEGImages/480p/dog" if layout == "davis" else "dog")
    paths = clip_writer.write_clip(folder, 6)
    for path in paths[2:5]:
        path.unlink()
    os.mkfifo(paths[2])
    paths[3].symlink_to(tmp_path / "gone.png")
    paths[4].symlink_to("/dev/zero")
    if layout == "davis":
        listed = tmp_path / "ImageSets/480p/trainval.txt"
        listed.parent.mkdir(parents=True)
        lines = [f"/{path.relative_to(tmp_path)} /unused" for path in paths]
        listed.write_text("\n".join(lines))
    told = refusal(tmp_path, layout)
    assert f"{paths[2]}: is no file but a pipe or a device" in told
    assert f"{paths[3]}: is a link to nothing" in told
    assert f"{paths[4]}: is no file but a pipe or a device" in told


@pytest.mark.parametrize(
    ("text", "said"),
    [(b"\xff\xfe\x00", "is no text"), (b"\n", "names no sequence")],
)
def test_an_image_set_that_names_nothing_is_refused(tmp_path, text, said):
    clip_writer.write_clip(tmp_path / "JPEGImages/240p/dog", 3)
    listed = tmp_path / "ImageSets/240p/trainval.txt"
    listed.parent.mkdir(parents=True)
    listed.write_bytes(text)
    assert said in refusal(tmp_path, "davis")
    listed.write_bytes(b"\xef\xbb\xbfdog\r\n")  # as some editors write it
    assert [clip.name for clip in find(tmp_path, "davis")] == ["dog"]


def test_a_root_that_is_a_pipe_is_refused(tmp_path):
    os.mkfifo(tmp_path / "film.mp4")
    for layout in ("auto", "video", "videos", "folder"):
        assert "neither" in refusal(tmp_path / "film.mp4", layout)


def forbid(monkeypatch, folder):
    """Let nobody list a folder; tests may run as one to whom nothing is forbidden."""
    listed = Path.iterdir

    def iterdir(self):
        if self == folder:
            raise PermissionError(errno.EACCES, "Permission denied", str(self))
        return listed(self)

    monkeypatch.setattr(Path, "iterdir", iterdir)


def test_a_clip_that_nobody_may_read_is_named_beside_other_defects(
    tmp_path, monkeypatch
):
    clip_writer.write_clip(tmp_path / "a", 1)
    for name in ("b", "c"):
        clip_writer.write_clip(tmp_path / name, 3)
    forbid(monkeypatch, tmp_path / "b")
    told = refusal(tmp_path)
    assert "2 problem(s)" in told
    assert "a: 1 frame(s)" in told
    assert f"b: {tmp_path / 'b'} cannot be read (Permission denied)" in told


def test_a_root_that_nobody_may_read_is_named(tmp_path, monkeypatch):
    clip_writer.write_clip(tmp_path / "a", 2)
    forbid(monkeypatch, tmp_path)
    for layout in ("auto", "folders", "folder", "videos"):
        told = refusal(tmp_path, layout)
        assert f"{tmp_path} cannot be read (Permission denied)" in told


def test_a_root_whose_name_is_too_long_is_refused():
    assert "cannot be read (File name too long)" in refusal("/" + "x" * 300)


def test_frames_under_sixteen_pixels_are_refused(tmp_path):
    for t in range(3):
        clip_writer.save(tmp_path / f"{t}.png", clip_writer.texture((15, 40)))
    assert "no side may be under 16 px" in refusal(tmp_path, "folder")


def test_a_gap_is_accepted_in_a_partial_copy(tmp_path):
    paths = clip_writer.write_clip(tmp_path / "dog", 5)
    paths[2].unlink()
    (clip,) = find(tmp_path, partial=True)
    assert [f.name for f in clip.frames] == ["00000", "00001", "00003", "00004"]


def test_missing_root_empty_folder_and_wrong_layout_say_what_to_do(tmp_path):
    assert "--config.data.root=PATH" in refusal(tmp_path / "gone")
    assert "--config.data.root=PATH" in refusal("")
    assert "holds no folder" in refusal(tmp_path)
    assert "0 frame(s)" in refusal(tmp_path, "folder")
    clip_writer.write_clip(tmp_path / "dog", 2)
    assert "is a file" in refusal(tmp_path / "dog/00000.png", "folder")
    assert "is a folder" in refusal(tmp_path, "video")


def test_a_frame_that_changes_after_the_check_is_named(tmp_path):
    paths = clip_writer.write_clip(tmp_path / "dog", 3)
    (clip,) = find(tmp_path)
    clip_writer.save(paths[1], clip_writer.texture((30, 30)))
    with pytest.raises(errors.UserError, match="frame 00001 of dog"):
        clip.read(1)


def test_pairs_stay_inside_clips_and_the_last_frame_reuses_the_last_pair(tmp_path):
    clip_writer.write_clip(tmp_path / "a", 3)
    clip_writer.write_clip(tmp_path / "b", 4)
    found = find(tmp_path)
    listed = [(p.clip, p.first, p.second) for p in clips.pairs(found)]
    assert listed == [(0, 0, 1), (0, 1, 2), (1, 0, 1), (1, 1, 2), (1, 2, 3)]
    assert [(p.first, p.second) for p in clips.pairs(found[:1], 2)] == [(0, 2)]
    assert clips.pair_of_frame(found[1], 3) == clips.Pair(0, 2, 3)
    assert clips.pair_of_frame(found[1], 0) == clips.Pair(0, 0, 1)


def test_a_fingerprint_follows_contents_and_not_time(tmp_path):
    paths = clip_writer.write_clip(tmp_path / "dog", 3)
    (clip,) = find(tmp_path)
    before = [clip.fingerprint(t) for t in range(3)]
    paths[0].touch()
    clip_writer.save(paths[1], clip_writer.texture((64, 96), 9))
    after = [clip.fingerprint(t) for t in range(3)]
    assert [a == b for a, b in zip(before, after, strict=True)] == [True, False, True]


def test_segtrackv2_and_fbms59_trees_are_read_as_published(shared):
    formats = shared / "data" / "formats"
    stv2 = find(formats / "SegTrackv2", "segtrackv2", partial=True)
    assert {c.name: (len(c.frames), c.size) for c in stv2} == {
        "made_hike": (2, (120, 214)),
        "made_motorbike": (10, (240, 428)),
        "made_swing": (3, (120, 214)),
    }
    config = clip_writer.config(formats / "FBMS59", "fbms59", partial=True)
    test = clips.find_clips(config.data, "val")
    assert [c.name for c in test] == ["made01", "made02", "made03"]
    assert test[0].frames[0].name == "made01_11"
    everything = clips.find_clips(config.data, "trainval")
    assert next(c.name for c in everything) == "bear01"
    assert "published are 30 sequences" in refusal(
        formats / "FBMS59", "fbms59", split="val"
    )


def test_youtube_vos_trees_are_read(tmp_path):
    clip_writer.write_clip(tmp_path / "train_all_frames/JPEGImages/00f88c4f0a", 3)
    (clip,) = find(tmp_path, "youtube_vos", split="train")
    assert clip.name == "00f88c4f0a"


def test_damaged_pixels_of_all_clips_are_listed_at_once(tmp_path):
    for name in ("a", "b"):
        path = clip_writer.write_clip(tmp_path / name, 3)[1]
        data = bytearray(path.read_bytes())
        data[len(data) // 2] ^= 0xFF
        path.write_bytes(bytes(data))
    found = find(tmp_path)
    with pytest.raises(errors.UserError, match=r"2 problem\(s\)"):
        clips.check_pixels(found)


def test_concealed_damage_of_a_jpeg_is_told(tmp_path, caplog):
    paths = clip_writer.write_clip(tmp_path / "a", 3, suffix=".jpg", size=(480, 640))
    clip_writer.damage_inside(paths[1])
    with caplog.at_level("WARNING"):
        clips.check_pixels(find(tmp_path))
    (told,) = caplog.messages
    assert "a: 1 frame(s)" in told
    assert "00001.jpg" in told


def test_a_frame_that_goes_away_meanwhile_is_named(tmp_path):
    paths = clip_writer.write_clip(tmp_path / "a", 3)
    found = find(tmp_path)
    paths[1].unlink()
    with pytest.raises(errors.UserError, match=r"00001\.png: is missing"):
        clips.check_pixels(found)


def test_a_frame_that_repeats_its_neighbour_is_told(tmp_path, caplog):
    paths = clip_writer.write_clip(tmp_path / "a", 4)
    shutil.copy(paths[1], paths[2])
    with caplog.at_level("WARNING"):
        clips.check_pixels(find(tmp_path))
    assert [f"{paths[2]} repeats 00001.png" in m for m in caplog.messages] == [True]
