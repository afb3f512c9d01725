import errno
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import clip_writer
import numpy as np
import pytest
from PIL import Image

from imas_jax import errors
from imas_jax.data import clips, video
from imas_jax.flow import estimators, files
from imas_jax.stages import flow, shares

COUNT = 6


@pytest.fixture
def setup(tmp_path):
    for name in ("dog", "cat"):
        clip_writer.write_clip(tmp_path / "frames" / name, COUNT)
    config = clip_writer.config(tmp_path / "frames")
    return config, clips.find_clips(config.data), tmp_path / "flow"


def snapshot(folder: Path) -> dict[str, tuple[int, bytes]]:
    """Return time stamp and contents of every file."""
    return {
        str(p.relative_to(folder)): (p.stat().st_mtime_ns, p.read_bytes())
        for p in sorted(folder.rglob("[!.]*.npz"))  # not what is half written
    }


def test_every_pair_gets_both_directions_in_pixels(setup):
    config, found, folder = setup
    result = flow.run(config, found, folder)
    assert (result["pairs"], result["computed"]) == (10, 10)
    target = flow.flow_folder(config, folder)
    for clip in found:
        for t in range(COUNT - 1):
            forward, backward = (
                target.read(clip.name, t, d) for d in ("forward", "backward")
            )
            assert forward.flow.shape == (32, 48, 2)
            assert forward.meta.frame_size == (64, 96)
            inside = (slice(13, 17), slice(9 + 3 * t // 2, 12 + 3 * t // 2))
            assert abs(np.median(forward.flow[inside][..., 0]) - 3) < 0.5
            assert abs(np.median(backward.flow[inside][..., 0]) + 3) < 0.5


def test_files_hold_the_estimator_s_flow_at_half_resolution(setup):
    config, found, folder = setup
    flow.run(config, found, folder)
    frames = clip_writer.moving_frames(COUNT)
    expected = estimators.make_estimator(config.flow)(frames[2], frames[3])
    target = flow.flow_folder(config, folder)
    for direction, whole in zip(files.DIRECTIONS, expected, strict=True):
        stored = target.read("dog", 2, direction).flow
        half = files.half_resolution(whole).astype(np.float16)
        assert (stored == half).all()


def test_a_second_run_computes_and_writes_nothing(setup):
    config, found, folder = setup
    flow.run(config, found, folder)
    before = snapshot(folder)
    assert flow.run(config, found, folder)["computed"] == 0
    assert snapshot(folder) == before


def test_damaged_truncated_and_lost_files_alone_are_recomputed(setup):
    config, found, folder = setup
    flow.run(config, found, folder)
    before = snapshot(folder)
    target = flow.flow_folder(config, folder)
    target.path("dog", 0, "forward").unlink()
    cut = target.path("dog", 2, "backward")
    cut.write_bytes(cut.read_bytes()[:-10])
    flipped = target.path("cat", 4, "forward")
    data = bytearray(flipped.read_bytes())
    data[len(data) // 3] ^= 1
    flipped.write_bytes(bytes(data))
    assert flow.run(config, found, folder)["computed"] == 3
    after = snapshot(folder)
    assert {k: v[1] for k, v in after.items()} == {k: v[1] for k, v in before.items()}
    untouched = [k for k in before if after[k][0] == before[k][0]]
    assert len(untouched) == len(before) - 6


def test_changed_settings_never_reuse_files(setup):
    config, found, folder = setup
    flow.run(config, found, folder)
    config.flow.size = 32
    assert flow.run(config, found, folder)["computed"] == 10


def test_a_changed_frame_recomputes_its_two_pairs(setup):
    config, found, folder = setup
    flow.run(config, found, folder)
    clip_writer.save(found[0].frames[3].path, clip_writer.texture((64, 96), 5))
    assert flow.run(config, found, folder)["computed"] == 2


def test_two_processes_share_the_pairs_and_both_see_all(setup):
    config, found, folder = setup
    flow.run(config, found, folder, share=shares.Share(1, 2))
    assert len(snapshot(folder)) == 10
    other = flow.run(config, found, folder, share=shares.Share(0, 2))
    assert other["computed"] == 5
    assert len(snapshot(folder)) == 20
    assert flow.run(config, found, folder)["computed"] == 0


def test_extra_gaps_reach_further(setup):
    config, found, folder = setup
    config.flow.gaps = (1, 2)
    assert flow.run(config, found[:1], folder)["computed"] == 9
    target = flow.flow_folder(config, folder)
    far = target.read("cat", 1, "forward", gap=2)
    assert abs(np.median(far.flow[13:17, 10:14, 0]) - 6) < 0.7
    config.flow.gaps = (7,)
    with pytest.raises(errors.UserError, match="gap 7 needs 8"):
        flow.run(config, found, folder)


def test_the_summary_tells_size_and_quality_of_each_clip(setup):
    config, found, folder = setup
    result = flow.run(config, found, folder)
    on_disk = sum(len(content) for _, content in snapshot(folder).values())
    assert abs(result["bytes"] - on_disk) < 0.02 * on_disk
    assert set(result["quality"]) == {"dog", "cat"}
    assert result["quality"]["dog"]["consistent"] > 0.5


def test_damaged_frames_are_all_named_before_any_flow_is_computed(setup):
    config, found, folder = setup
    for clip in found:
        clip.frames[4].path.write_bytes(b"")
    with pytest.raises(errors.UserError, match=r"2 problem\(s\)"):
        flow.run(config, found, folder)
    assert not folder.exists()


def test_a_frame_that_breaks_on_the_way_keeps_what_is_done(setup, monkeypatch):
    config, found, folder = setup
    monkeypatch.setattr(flow.clips_lib, "check_pixels", lambda clips: None)
    found[1].frames[5].path.write_bytes(b"")
    with pytest.raises(errors.UserError, match="0 bytes"):
        flow.run(config, found, folder)
    assert len(snapshot(folder)) >= 10


def test_a_disk_that_fills_up_says_what_is_needed_and_keeps_what_is_done(
    setup, monkeypatch
):
    config, found, folder = setup
    write, written = files.np.savez, []

    def savez(file, **arrays):
        if len(written) == 6:
            file.write(b"half a file")
            raise OSError(errno.ENOSPC, "No space left on device")
        written.append(file.name)
        write(file, **arrays)

    monkeypatch.setattr(files.np, "savez", savez)
    monkeypatch.setattr(os, "cpu_count", lambda: 1)
    with pytest.raises(errors.UserError, match="No space left") as told:
        flow.run(config, found, folder)
    assert "MB free" in told.value.expected
    monkeypatch.undo()
    assert len(snapshot(folder)) == 6
    assert flow.run(config, found, folder)["computed"] == 7


def test_a_folder_without_permission_or_room_is_told(setup, monkeypatch):
    config, found, folder = setup
    folder.write_text("a file where the folder should be")
    with pytest.raises(errors.UserError, match=r"flow\.root"):
        flow.run(config, found, folder)
    folder.unlink()
    usage = type("Usage", (), {"free": 1000})
    monkeypatch.setattr(flow.shutil, "disk_usage", lambda path: usage)
    with pytest.raises(errors.UserError, match="make room"):
        flow.run(config, found, folder)


SLOW_RUN = """
import os, sys, time
os.cpu_count = lambda: 2
sys.path[:0] = {path!r}
import clip_writer
from pathlib import Path
from imas_jax.data import clips
from imas_jax.flow import files
from imas_jax.stages import flow

config = clip_writer.config(Path({frames!r}))
write = files.np.savez

def savez(file, **arrays):
    write(file, **arrays)
    file.flush()
    time.sleep(0.05)  # killed most likely between writing and renaming

files.np.savez = savez
flow.run(config, clips.find_clips(config.data), Path({folder!r}))
"""


def test_kill_9_leaves_only_whole_files_and_the_rerun_completes_them(setup):
    config, found, folder = setup
    code = SLOW_RUN.format(
        path=[str(Path(__file__).parents[1]), str(Path(__file__).parents[2])],
        frames=config.data.root,
        folder=str(folder),
    )
    process = subprocess.Popen([sys.executable, "-c", code])
    deadline = time.monotonic() + 60
    while len(list(folder.rglob("[!.]*.npz"))) < 7 and time.monotonic() < deadline:
        time.sleep(0.01)
    os.kill(process.pid, signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL
    left = snapshot(folder)
    assert 7 <= len(left) < 20
    for name in left:
        files.read_flow(folder / name)
    again = flow.run(config, found, folder)
    assert 0 < again["computed"] < 10
    whole = snapshot(folder)
    kept = [name for name in left if whole[name] == left[name]]
    assert len(kept) >= len(left) - 2  # one file of each worker's pair
    fresh = folder.with_name("fresh")
    flow.run(config, found, fresh)
    assert {k: v[1] for k, v in snapshot(fresh).items()} == {
        k: v[1] for k, v in whole.items()
    }


def test_a_video_file_gives_the_flow_of_its_frames(tmp_path, monkeypatch):
    frames = [Image.fromarray(f) for f in clip_writer.moving_frames(COUNT)]
    path = tmp_path / "a.gif"
    frames[0].save(path, save_all=True, append_images=frames[1:], duration=40)
    config = clip_writer.config(path, "video")
    config.flow.gaps = (1, 2)
    found = clips.find_clips(config.data)
    opened = []
    start = video._open
    monkeypatch.setattr(video, "_open", lambda p: opened.append(p) or start(p))
    assert flow.run(config, found, tmp_path / "flow")["computed"] == 9
    assert len(opened) == 2  # decoded from start to end once a gap
    estimator = estimators.make_estimator(config.flow)
    target = flow.flow_folder(config, tmp_path / "flow")
    for first, gap in ((0, 1), (4, 1), (1, 2)):
        forward, _ = estimator(found[0].read(first), found[0].read(first + gap))
        stored = target.read("a", first, "forward", gap).flow
        assert (stored == files.half_resolution(forward).astype(np.float16)).all()
