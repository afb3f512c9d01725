import clip_writer
import needs_tensorflow
import pair_writer
import pytest

from imas_jax import errors
from imas_jax.data import clips, pipeline
from imas_jax.stages import prepare


def test_a_memory_set_is_checked_and_counted_and_nothing_is_written(tmp_path):
    config, found = pair_writer.write_training_set(tmp_path)
    result = prepare.run(config, found.clips, found.flow, tmp_path / "prepare")
    assert (result["clips"], result["frames"], result["pairs"]) == (2, 9, 7)
    assert result["frames_of_clip"] == {"cat": 4, "dog": 5}
    assert result["size"] == [48, 64]
    pixels = 9 * 48 * 64 * 3 + 7 * 2 * 24 * 32 * 2 * 2
    assert pixels <= result["memory_bytes"] < pixels + 7 * 2 * 2000
    assert not (tmp_path / "prepare").exists()


@needs_tensorflow.mark
def test_shards_are_written_once_and_training_finds_them(tmp_path):
    config, found = pair_writer.write_training_set(tmp_path, source="tfrecord")
    arrived = []
    folder = tmp_path / "prepare"
    first = prepare.run(
        config, found.clips, found.flow, folder, wait=lambda: arrived.append(1)
    )
    before = {p: p.stat().st_mtime_ns for p in folder.rglob("*.array_record-*")}
    assert len(before) == 2
    again = prepare.run(config, found.clips, found.flow, folder)
    assert first == again
    after = {p: p.stat().st_mtime_ns for p in folder.rglob("*.array_record-*")}
    assert before == after
    assert arrived == [1]
    source = pipeline.make_source(config, found, "discover", folder)
    assert source.batch(0).frames.shape == (4, 2, 48, 64, 3)


def test_damage_inside_a_frame_is_found_before_training(tmp_path):
    config, found = pair_writer.write_training_set(tmp_path)
    path = found.clips[0].frames[2].path
    data = bytearray(path.read_bytes())
    data[len(data) // 2 : len(data) // 2 + 40] = bytes(40)
    path.write_bytes(bytes(data))
    with pytest.raises(errors.UserError, match=r"00002\.png"):
        prepare.run(config, found.clips, found.flow, tmp_path / "prepare")


def test_missing_flow_is_told_with_the_stage_to_run(tmp_path):
    config, found = pair_writer.write_training_set(tmp_path)
    for t in (0, 1):
        found.flow.path("cat", t, "forward").unlink()
    with pytest.raises(errors.UserError, match=r"(?s)2 problem.*00000_.*00001_") as e:
        prepare.run(config, found.clips, found.flow, tmp_path / "prepare")
    assert "--config.stage=flow" in e.value.fix


class Processes:
    """Says what each process of several would have said, and heard by now."""

    def __init__(self):
        self.said, self.waited = [], 0

    def exchange(self, text):
        self.said.append(text)
        return list(self.said)

    def wait(self):
        self.waited += 1


def test_processes_look_at_a_share_each_and_one_tells_what_all_have_found(
    tmp_path, monkeypatch
):
    config, found = pair_writer.write_training_set(tmp_path)
    looked = []
    inspect = prepare.clips_lib.pixel_problems
    monkeypatch.setattr(
        prepare.clips_lib,
        "pixel_problems",
        lambda clips: looked.append([c.name for c in clips]) or inspect(clips),
    )

    def run(index, processes):
        return prepare.run(
            config,
            found.clips,
            found.flow,
            tmp_path / "prepare",
            (index, 2),
            processes.wait,
            processes.exchange,
        )

    sound = Processes()
    assert run(0, sound) == run(1, sound)
    assert looked == [["cat"], ["dog"]]
    assert sound.waited == 0
    for clip in found.clips:
        path = clip.frames[1].path
        path.write_bytes(path.read_bytes()[:200])
        found.flow.path(clip.name, 0, "backward").unlink()
    # The last to speak hears all, and waits before it says what the first one says.
    broken = Processes()
    with pytest.raises(errors.UserError):
        run(1, broken)
    with pytest.raises(errors.UserError) as caught:
        run(0, broken)
    assert broken.waited == 1
    told = caught.value.found
    assert told.count("2 problem(s)") == 2
    for part in ("00001.png", "00001.jpg", "cat pair 0-1", "dog pair 0-1"):
        assert part in told
    assert "--config.stage=flow" in caught.value.fix


def test_clips_of_two_processes_on_two_grids_are_told(tmp_path):
    config, found = pair_writer.write_training_set(tmp_path)
    for index in found.indices_of_clip[0]:
        pair = found.pairs[index]
        pair_writer.write_flow(found.flow, found.clips[0], pair, (12, 16))
    processes = Processes()
    arguments = (config, found.clips, found.flow, tmp_path / "prepare")
    others = (processes.wait, processes.exchange)
    prepare.run(*arguments, (1, 2), *others)  # its share alone is sound
    with pytest.raises(errors.UserError, match=r"cat pair 0-1: its flow grid is \(12"):
        prepare.run(*arguments, (0, 2), *others)


def test_one_report_names_every_defect_of_a_bad_dataset(tmp_path):
    config, _ = pair_writer.write_training_set(
        tmp_path, {f"clip{n}": 4 for n in range(8)}
    )
    frames = tmp_path / "frames"
    (frames / "clip0" / "00001.png").write_bytes(b"")
    data = (frames / "clip1" / "00002.png").read_bytes()
    (frames / "clip1" / "00002.png").write_bytes(data[: len(data) // 2])
    clip_writer.save(frames / "clip2" / "00003.png", clip_writer.texture((32, 32)))
    (frames / "clip3" / "00001.png").unlink()
    (frames / "clip4" / "1.png").write_bytes(data)
    (frames / "clip5" / "00002.png").write_text("not an image")
    for path in (frames / "clip6").glob("0000[123].png"):
        path.unlink()
    with pytest.raises(errors.UserError) as caught:
        clips.find_clips(config.data)
    told = [x for x in caught.value.found.splitlines() if x.startswith("    - ")]
    assert [n for n in range(8) if any(f"clip{n}" in x for x in told)] == list(range(7))
    assert len(told) == 7
