import errno
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import clip_writer
import cv2
import needs_tensorflow
import numpy as np
import pair_writer
import pytest

from imas_jax import errors
from imas_jax.data import clips, images, sealed, training_set

builders, pytestmark = needs_tensorflow.builders(), needs_tensorflow.mark


@pytest.fixture
def made(tmp_path):
    """A small training set and a folder for its shards."""
    config, found = pair_writer.write_training_set(tmp_path)
    return config, found, tmp_path / "shards"


def find_again(config, found):
    """Find the clips anew, as the next run of a command does."""
    return training_set.find(config, clips.find_clips(config.data), found.flow)


def snapshot(folder: Path) -> dict[str, tuple[int, bytes]]:
    """Return time stamp and contents of every shard."""
    return {
        str(p.relative_to(folder)): (p.stat().st_mtime_ns, p.read_bytes())
        for p in sorted(folder.rglob("*.array_record-*"))
    }


def records(found, folder: Path) -> list[dict]:
    """Decode every record; their bytes may differ, the fields have no order."""
    read = []
    for place in builders.places(found, range(len(found.clips)), folder):
        place = place / "frame_pairs" / builders.RECORD_VERSION
        read += list(
            builders.tfds.builder_from_directory(place).as_data_source("train")
        )
    assert len(read) == len(found.pairs)
    return read


def assert_same_records(found, one: Path, two: Path) -> None:
    for first, second in zip(records(found, one), records(found, two), strict=True):
        for name in first:
            np.testing.assert_array_equal(first[name], second[name], err_msg=name)


def test_jpeg_files_are_copied_and_everything_else_is_stored_without_loss(tmp_path):
    clip_writer.write_clip(tmp_path / "jpeg", 2, ".jpg", size=(48, 64))
    clip_writer.write_clip(tmp_path / "png", 2, ".png", size=(48, 64))
    for size, copied in (((0, 0), True), ((32, 48), False)):
        config = clip_writer.config(tmp_path, size=size)
        jpeg, png = clips.find_clips(config.data)
        data = builders.encode_frame(jpeg, 1)
        assert (data == jpeg.frames[1].path.read_bytes()) == copied
        for clip in (png, jpeg)[: 1 if copied else 2]:
            data = np.frombuffer(builders.encode_frame(clip, 1), np.uint8)
            pixels = cv2.imdecode(data, cv2.IMREAD_COLOR)[..., ::-1]
            np.testing.assert_array_equal(pixels, clip.read(1))


def test_a_rotated_jpeg_is_stored_upright(tmp_path):
    from PIL import Image

    frames = clip_writer.moving_frames(2, size=(48, 64))
    exif = Image.Exif()
    exif[builders.EXIF_ORIENTATION] = 6
    for t, frame in enumerate(frames):
        (tmp_path / "a").mkdir(exist_ok=True)
        Image.fromarray(frame).save(tmp_path / "a" / f"{t:05d}.jpg", exif=exif)
    (clip,) = clips.find_clips(clip_writer.config(tmp_path).data)
    assert clip.size == (64, 48)
    data = np.frombuffer(builders.encode_frame(clip, 0), np.uint8)
    assert cv2.imdecode(data, cv2.IMREAD_COLOR).shape == (64, 48, 3)
    assert data[:4].tobytes() == b"\x89PNG"


def test_records_hold_frames_and_flow_and_no_annotation(made):
    _, found, folder = made
    builders.write_shards(found, folder)
    place = builders.places(found, [0], folder)[0] / "frame_pairs"
    info = builders.tfds.builder_from_directory(place / builders.RECORD_VERSION).info
    names = {"first", "second", "flow", "first_index", "second_index"}
    assert set(info.features) == names
    for record, pair in zip(records(found, folder), found.pairs, strict=True):
        clip = found.clips[pair.clip]
        assert (record["first_index"], record["second_index"]) == (
            pair.first,
            pair.second,
        )
        if clip.name == "cat":
            np.testing.assert_array_equal(record["second"], clip.read(pair.second))
    assert list(info.splits) == ["train"]
    assert str(info.version) == builders.RECORD_VERSION


def test_a_second_run_writes_nothing(made):
    config, found, folder = made
    assert builders.write_shards(found, folder) == {"written": 2, "reused": 0}
    before = snapshot(folder)
    again = builders.write_shards(find_again(config, found), folder)
    assert again == {"written": 0, "reused": 2}
    assert snapshot(folder) == before


def test_a_changed_frame_rewrites_its_clip_and_no_other(made):
    config, found, folder = made
    builders.write_shards(found, folder)
    before = snapshot(folder)
    path = found.clips[0].frames[1].path
    clip_writer.save(path, 255 - images.read_image(path))
    changed = find_again(config, found)
    with pytest.raises(errors.UserError, match="cat: frames, flow or settings changed"):
        builders.open_shards(changed, folder)
    assert builders.write_shards(changed, folder) == {"written": 1, "reused": 1}
    after = snapshot(folder)
    assert len(after) == len(before) == 2
    assert set(after) & set(before) == {name for name in before if "dog" in name}
    builders.open_shards(changed, folder)


def test_other_flow_settings_never_meet_old_shards(made):
    config, found, folder = made
    builders.write_shards(found, folder)
    config.flow.background = "homography"
    with pytest.raises(errors.UserError, match=r"(?s)2 problem.*cat.*dog"):
        builders.open_shards(find_again(config, found), folder)


def test_shards_that_are_missing_are_all_named(made):
    _, found, folder = made
    with pytest.raises(errors.UserError, match=r"(?s)cat: no shards.*dog: no shards"):
        builders.open_shards(found, folder)


def test_processes_share_the_clips(made, tmp_path):
    _, found, folder = made
    for index in (0, 1):
        counts = builders.write_shards(found, folder, (index, 2))
        assert counts == {"written": 1, "reused": 0}
    builders.write_shards(found, tmp_path / "alone")
    assert_same_records(found, folder, tmp_path / "alone")


@pytest.fixture
def read_whole(monkeypatch):
    """Note every file that is read for its checksum."""
    seen, crc = [], sealed.crc
    monkeypatch.setattr(sealed, "crc", lambda path: seen.append(path.name) or crc(path))
    return seen


def test_frames_and_shards_are_checksummed_once(made, read_whole):
    config, found, folder = made
    builders.write_shards(found, folder)
    assert len(read_whole) == 9 + 2
    read_whole.clear()
    for _ in range(2):
        again = find_again(config, found)
        assert builders.write_shards(again, folder) == {"written": 0, "reused": 2}
        builders.open_shards(again, folder)
    assert read_whole == []
    # Another time, the same bytes: a copy, or a new shard of nothing.
    frame = found.clips[0].frames[1].path
    shard = next(folder.glob("dog/**/*.array_record-*"))
    for path in (frame, shard):
        os.utime(path, ns=(7, 7))
    builders.open_shards(found, folder)
    assert sorted(read_whole) == sorted([frame.name, shard.name])
    builders.write_shards(found, folder)
    read_whole.clear()
    builders.open_shards(found, folder)
    assert read_whole == []


@pytest.mark.parametrize("harm", ["cut", "changed"])
def test_a_damaged_shard_is_named_and_its_clip_written_again(made, harm):
    _, found, folder = made
    builders.write_shards(found, folder)
    before = snapshot(folder)
    shard = next(folder.glob("dog/**/*.array_record-*"))
    data = bytearray(shard.read_bytes())
    data[len(data) // 2] ^= 1
    shard.write_bytes(data[:-1] if harm == "cut" else data)
    assert not builders.are_written(found, folder)
    with pytest.raises(errors.UserError, match="dog: its shards are damaged"):
        builders.open_shards(found, folder)
    assert builders.write_shards(found, folder) == {"written": 1, "reused": 1}
    assert builders.are_written(found, folder)
    after = snapshot(folder)
    assert all(after[name] == before[name] for name in before if "cat" in name)
    builders.open_shards(found, folder)


def test_shards_of_before_there_were_seals_are_kept_and_sealed(made):
    _, found, folder = made
    builders.write_shards(found, folder)
    before = snapshot(folder)
    for path in [*folder.rglob("*.seal"), *folder.rglob(builders.CHECKSUMS)]:
        path.unlink()
    builders.open_shards(found, folder)
    assert builders.write_shards(found, folder) == {"written": 0, "reused": 2}
    assert snapshot(folder) == before
    assert len(list(folder.rglob("*.seal"))) == 2


KILLED = """
import os, signal, sys
from pathlib import Path
sys.path[:0] = sys.argv[2:]
import clip_writer
from imas_jax.data import builders, clips, training_set
from imas_jax.flow import files
root = Path(sys.argv[1])
config = clip_writer.config(root / "frames")
flow = files.FlowFolder(root / "flow", "test")
found = training_set.find(config, clips.find_clips(config.data), flow)
encode, calls = builders.encode_frame, []
def dies(clip, index):
    calls.append(index)
    if len(calls) == 7:  # in the middle of the second clip
        os.kill(os.getpid(), signal.SIGKILL)
    return encode(clip, index)
builders.encode_frame = dies
builders.write_shards(found, root / "shards")
"""


def test_a_killed_run_leaves_no_half_clip_and_the_next_one_finishes(made, tmp_path):
    config, found, folder = made
    paths = [str(Path(__file__).parents[1]), str(Path(__file__).parents[2])]
    command = [sys.executable, "-c", KILLED, str(tmp_path), *paths]
    assert subprocess.run(command, check=False).returncode == -signal.SIGKILL
    where = builders.places(found, [0, 1], folder)
    whole = [builders.is_written(found, clip, where[clip]) for clip in (0, 1)]
    assert whole == [True, False]
    assert list(folder.glob("dog/**/incomplete.*")), "killed too early to show anything"
    with pytest.raises(
        errors.UserError, match="dog: its shards are damaged or not complete"
    ):
        builders.open_shards(found, folder)

    again = builders.write_shards(find_again(config, found), folder)
    assert again == {"written": 1, "reused": 1}
    assert not list(folder.glob("**/incomplete.*"))
    builders.write_shards(found, tmp_path / "uninterrupted")
    assert_same_records(found, folder, tmp_path / "uninterrupted")


@pytest.mark.parametrize("as_system_error", [True, False])
def test_a_full_disk_keeps_finished_clips_and_says_how_much_is_missing(
    made, monkeypatch, as_system_error
):
    _, found, folder = made
    words = os.strerror(errno.ENOSPC)
    write = builders._write_clip

    def fails(training_set, clip, place):
        if clip == 1:
            if as_system_error:
                raise OSError(errno.ENOSPC, words)
            raise RuntimeError(f"Failed to finalize: write() failed: {words}; writing")
        write(training_set, clip, place)

    monkeypatch.setattr(builders, "_write_clip", fails)
    with pytest.raises(errors.UserError, match=r"No space left") as caught:
        builders.write_shards(found, folder)
    assert "MB free" in caught.value.expected
    assert "finished clips are kept" in caught.value.fix
    monkeypatch.undo()
    assert builders.write_shards(found, folder) == {"written": 1, "reused": 1}


def test_a_defect_of_the_program_is_not_called_a_full_disk(made, monkeypatch):
    def fails(training_set, clip, place):
        raise RuntimeError("something else")

    monkeypatch.setattr(builders, "_write_clip", fails)
    with pytest.raises(RuntimeError, match="something else"):
        builders.write_shards(made[1], made[2])


def test_a_disk_that_is_too_small_is_refused_before_writing(made, monkeypatch):
    _, found, folder = made
    usage = shutil.disk_usage("/")._replace(free=1000)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage)
    with pytest.raises(errors.UserError, match="0 MB free") as caught:
        builders.write_shards(found, folder)
    assert "2 clip(s)" in caught.value.expected
    assert not snapshot(folder)


def test_the_estimate_of_disk_space_is_not_too_low(made):
    _, found, folder = made
    builders.write_shards(found, folder)
    needed = sum(builders.clip_bytes(found, clip) for clip in range(2))
    written = sum(len(data) for _, data in snapshot(folder).values())
    # ArrayRecord rounds each file up to its 64 KiB blocks.
    assert written - 2 * 2 * 65536 <= needed
