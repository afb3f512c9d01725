"""One decoded copy a host: the same values, made once, whole, and within bounds."""

import errno
import os
import subprocess
import sys
from pathlib import Path

import clip_writer
import numpy as np
import pair_writer
import pytest

from imas_jax import files
from imas_jax.data import clips, decoded, images, pipeline, sealed, training_set
from imas_jax.errors import UserError


@pytest.fixture
def made(tmp_path):
    """A training set, and a folder for what is decoded of it."""
    config, found = pair_writer.write_training_set(tmp_path)
    config.data.cache = str(tmp_path / "decoded")
    return config, found, tmp_path / "decoded"


def find_again(config, found):
    return training_set.find(config, clips.find_clips(config.data), found.flow)


def read(found, kept):
    return decoded.read_frames(found, kept), decoded.read_flows(found, kept)


def entries(kept):
    """Return every entry and when it was made."""
    return {path: path.stat().st_mtime_ns for path in kept.glob("*.npy")}


def assert_like_memory(found, kept):
    for mapped, plain in zip(read(found, kept), read(found, None), strict=True):
        for one, other in zip(mapped, plain, strict=True):
            assert one.dtype == other.dtype
            np.testing.assert_array_equal(one, other)


def is_mapped(array):
    while array is not None and not isinstance(array, np.memmap):
        array = array.base
    return array is not None


@pytest.mark.parametrize("background", ["none", "homography"])
def test_mapped_values_are_the_decoded_ones_and_are_made_once(made, background):
    config, found, kept = made
    config.flow.background = background
    config.flow.gaps = (1,)
    found = find_again(config, found)
    assert_like_memory(found, kept)
    frames, flows = read(found, kept)
    assert all(is_mapped(one) for one in (*frames, *flows))
    before = entries(kept)
    assert len(before) == 2 * len(found.clips)
    read(find_again(config, found), kept)
    assert entries(kept) == before


def test_batches_come_straight_from_the_map(made):
    config, found, kept = made
    source = pipeline.make_source(config, found, "discover", kept)
    assert all(is_mapped(one) for one in source.frames)
    config.data.cache = decoded.OFF
    plain = pipeline.make_source(config, found, "discover", kept)
    assert not any(is_mapped(one) for one in plain.frames)
    for step in range(4):
        one, other = source.batch(step), plain.batch(step)
        for name in ("frames", "flow_forward", "flow_backward", "pair"):
            np.testing.assert_array_equal(getattr(one, name), getattr(other, name))


def test_where_it_lies(monkeypatch, tmp_path):
    monkeypatch.delenv("TMPDIR", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "home"))
    large, small = decoded.SMALL, decoded.SMALL - 1
    home = tmp_path / "home/imas_jax/decoded"
    assert decoded.folder("", large, 1) == decoded.folder("", small, 2) == home
    assert decoded.folder("", small, 1) is None  # nobody to share it with
    assert decoded.folder("here", small, 1) == Path("here")
    assert decoded.folder(decoded.OFF, large, 8) is None
    monkeypatch.setenv("TMPDIR", str(tmp_path / "job"))
    job = tmp_path / f"job/imas_jax-{os.getuid()}/decoded"
    assert decoded.folder("", large, 1) == job


def test_what_changed_is_made_again_and_nothing_else(made):
    config, found, kept = made
    read(found, kept)
    before = entries(kept)
    path = found.clips[0].frames[1].path
    clip_writer.save(path, 255 - images.read_image(path))
    field = files_of_pair(found, 4)
    data = field.read_bytes()
    field.write_bytes(data)
    os.utime(field, ns=(1, 1))
    assert_like_memory(find_again(config, found), kept)
    assert len(set(entries(kept)) - set(before)) == 2
    assert entries(kept).items() >= before.items()


def files_of_pair(found, index):
    return found.paths(index)[0]


@pytest.mark.parametrize("harm", ["cut", "lost", "unsealed", "changed"])
def test_a_damaged_entry_is_made_again(made, harm):
    _, found, kept = made
    read(found, kept)
    path = sorted(kept.glob("frames-*.npy"))[0]
    data = bytearray(path.read_bytes())
    if harm == "cut":
        path.write_bytes(data[:-100])
    elif harm == "changed":
        data[-1] ^= 1
        path.write_bytes(data)
    elif harm == "unsealed":
        sealed.seal_of(path).unlink()
    else:
        path.unlink()
    assert_like_memory(found, kept)
    assert sealed.is_whole(path)


def test_a_copied_entry_is_checksummed_once_and_then_trusted(made, monkeypatch):
    _, found, kept = made
    read(found, kept)
    path = next(kept.glob("*.npy"))
    os.utime(path, ns=(5, 5))
    seen = []
    crc = sealed.crc
    monkeypatch.setattr(sealed, "crc", lambda path: seen.append(path) or crc(path))
    before = entries(kept)
    for _ in range(2):
        read(found, kept)
    assert seen == [path]
    assert entries(kept) == before


def test_a_frame_that_cannot_be_read_leaves_no_part_of_its_clip(made):
    _, found, kept = made
    path = found.clips[0].frames[2].path
    path.write_bytes(path.read_bytes()[:200])
    with pytest.raises(UserError, match=r"00002\.png"):
        decoded.read_frames(found, kept)
    assert not [p for p in kept.iterdir() if "partial" in p.name]
    assert len(entries(kept)) <= 1  # the other clip


def test_every_flow_defect_is_told_at_once_as_without_a_map(made):
    _, found, kept = made
    files_of_pair(found, 0).unlink()
    field = files_of_pair(found, 1)
    field.write_bytes(field.read_bytes()[:100])
    pair_writer.write_flow(found.flow, found.clips[0], found.pairs[2], (12, 16))
    with pytest.raises(UserError) as caught:
        decoded.read_flows(found, kept)
    with pytest.raises(UserError) as plain:
        training_set.read_flows(found)
    assert str(caught.value) == str(plain.value)
    assert "3 problem(s)" in str(caught.value)


def test_a_clip_on_another_grid_is_named(made):
    _, found, kept = made
    for index in found.indices_of_clip[0]:
        pair_writer.write_flow(found.flow, found.clips[0], found.pairs[index], (12, 16))
    for _ in range(2):  # also when all entries are there
        with pytest.raises(UserError, match=r"cat pair 0-1: its flow grid is \(12, 16"):
            decoded.read_flows(found, kept)


def test_a_full_disk_is_one_message_and_leaves_nothing(made, monkeypatch):
    _, found, kept = made

    def full(path, checksum=None):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(decoded.sealed, "seal", full)
    with pytest.raises(UserError, match="No space left") as caught:
        read(found, kept)
    assert "--config.data.cache=DIR" in caught.value.fix
    monkeypatch.undo()
    assert_like_memory(found, kept)
    usage = decoded.shutil.disk_usage("/")._replace(free=1000)
    monkeypatch.setattr(decoded.shutil, "disk_usage", lambda path: usage)
    read(found, kept)  # nothing is to be written
    for path in kept.glob("frames*"):
        path.unlink()
    with pytest.raises(UserError, match="decoded frames") as caught:
        read(found, kept)
    assert "--config.data.cache" in caught.value.fix


def test_a_folder_that_cannot_be_written_to_is_one_message(made):
    _, found, kept = made
    kept.write_text("in the way")
    with pytest.raises(UserError, match="frames cannot be kept in") as caught:
        read(found, kept)
    assert decoded.OFF in caught.value.fix


def test_a_folder_that_somebody_filled_need_not_be_writable(made, monkeypatch):
    _, found, kept = made
    read(found, kept)

    def forbidden(*_, **__):
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))

    monkeypatch.setattr(decoded.os, "utime", forbidden)
    monkeypatch.setattr(files, "alone", forbidden)
    assert_like_memory(found, kept)


def test_what_was_not_used_for_longest_goes_first(made, monkeypatch, tmp_path):
    config, found, kept = made
    config.data.cache = str(kept)
    alone = found.clips[0]
    old = training_set.TrainingSet((alone,), found.pairs[:3], found.flow, "homography")
    decoded.read_flows(old, kept)
    (gone,) = entries(kept)
    os.utime(sealed.seal_of(gone), (1, 1))
    decoded.read_flows(found, kept)
    kept_then = entries(kept)
    assert gone in kept_then  # there is room for all
    size = sum(path.stat().st_size for path in kept.glob("*.npy"))
    monkeypatch.setattr(decoded, "LARGEST", size + 1)
    decoded.read_frames(found, kept)
    assert gone not in entries(kept)
    assert not sealed.seal_of(gone).exists()
    assert_like_memory(found, kept)


CHILD = """
import sys
from pathlib import Path
sys.path[:0] = sys.argv[2:]
import clip_writer
from absl import logging
from imas_jax.data import clips, decoded, training_set
from imas_jax.flow import files
logging.use_absl_handler()
logging.set_verbosity(logging.INFO)
root = Path(sys.argv[1])
config = clip_writer.config(root / "frames")
found = training_set.find(
    config, clips.find_clips(config.data), files.FlowFolder(root / "flow", "test")
)
frames = decoded.read_frames(found, root / "decoded")
sys.stderr.write(f"sum {sum(int(one.sum()) for one in frames)}\\n")
"""


def test_one_process_decodes_while_the_others_wait(made, tmp_path):
    _, found, kept = made
    paths = [str(Path(__file__).parents[1]), str(Path(__file__).parents[2])]
    command = [sys.executable, "-c", CHILD, str(tmp_path), *paths]
    with files.alone(kept / ".lock", "busy"):
        both = [
            subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
            for _ in range(2)
        ]
        for process in both:
            for line in process.stderr:
                if "another process of this host decodes into" in line:
                    break
            else:
                pytest.fail("it did not wait")
    said = [process.communicate()[1] for process in both]
    assert [process.returncode for process in both] == [0, 0]
    assert sum("decoding the frames of 2 clip(s)" in one for one in said) == 1
    total = sum(int(one.sum()) for one in training_set.read_frames(found))
    assert all(f"sum {total}" in one for one in said)
