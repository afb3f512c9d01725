import dataclasses
import itertools
import subprocess
import sys
import threading
import time

import clip_writer
import needs_tensorflow
import numpy as np
import pair_writer
import pytest

from imas_jax import errors
from imas_jax.conventions import Batch
from imas_jax.data import clips, order, pipeline, training_set
from imas_jax.flow import files

builders, pytestmark = needs_tensorflow.builders(), needs_tensorflow.mark


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    """A config, its training set and its shards, written once."""
    root = tmp_path_factory.mktemp("set")
    config, found = pair_writer.write_training_set(root)
    builders.write_shards(found, root / pipeline.SHARDS)
    return config, found, root


def source(written, kind="memory", stage="discover", targets=None, process=(0, 1)):
    config, found, root = written
    config = config.copy_and_resolve_references()
    config.data.source = kind
    return pipeline.make_source(config, found, stage, root, targets, process)


def assert_equal(one: Batch, two: Batch) -> None:
    for name in ("frames", "flow_forward", "flow_backward", "target", "pair"):
        first, second = getattr(one, name), getattr(two, name)
        assert (first is None) == (second is None)
        if first is not None:
            assert first.dtype == second.dtype
            np.testing.assert_array_equal(first, second, err_msg=name)


def test_every_epoch_shows_every_pair_once_whatever_the_batch_size():
    for batch_size in (3, 7, 25):
        places = order.Order(10, batch_size, seed=0)
        shown = np.concatenate([places.indices(step) for step in range(20)])
        epochs = shown[: len(shown) // 10 * 10].reshape(-1, 10)
        assert (np.sort(epochs, axis=1) == np.arange(10)).all()
        assert len({tuple(epoch) for epoch in epochs}) == len(epochs)


def test_the_order_is_a_function_of_seed_stage_and_step_alone():
    places = order.Order(50, 4, seed=3)
    backwards = [places.indices(step) for step in reversed(range(30))][::-1]
    again = order.Order(50, 4, seed=3)
    np.testing.assert_array_equal(backwards, [again.indices(s) for s in range(30)])
    others = (order.Order(50, 4, seed=4), order.Order(50, 4, seed=3, stage="refine"))
    for other in others:
        assert (np.stack(backwards) != [other.indices(s) for s in range(30)]).any()


def test_the_order_of_a_seed_never_changes_between_versions():
    # A change here breaks resuming of everybody's runs.
    shown = [order.Order(8, 4, seed=0).indices(step).tolist() for step in range(3)]
    assert shown == [[0, 3, 7, 5], [1, 2, 6, 4], [4, 7, 6, 1]]


def test_processes_share_a_batch_without_overlap():
    whole = order.Order(20, 6, seed=1).indices(5)
    parts = [
        order.Order(20, 6, 1, process_index=i, process_count=3).local(5)
        for i in range(3)
    ]
    np.testing.assert_array_equal(np.concatenate(parts), whole)
    with pytest.raises(errors.UserError, match="batch_size=6 over 4 processes"):
        order.Order(20, 6, 1, process_count=4)


def test_a_batch_holds_the_frames_and_flow_of_its_pairs(written):
    _, found, _ = written
    batch = source(written).batch(2)
    assert batch.frames.shape == (4, 2, *pair_writer.SIZE, 3)
    assert batch.frames.dtype == np.uint8
    assert batch.flow_forward.dtype == np.float16
    for i, index in enumerate(batch.pair):
        pair = found.pairs[index]
        clip = found.clips[pair.clip]
        np.testing.assert_array_equal(batch.frames[i, 0], clip.read(pair.first))
        np.testing.assert_array_equal(batch.frames[i, 1], clip.read(pair.second))
        for flow, direction in zip(
            (batch.flow_forward, batch.flow_backward), files.DIRECTIONS, strict=True
        ):
            wanted = pair_writer.flow_of(pair, direction)
            np.testing.assert_array_equal(flow[i], wanted)


@pytest.mark.parametrize("kind", ["memory", "tfrecord"])
def test_a_resumed_run_sees_the_batches_of_an_uninterrupted_one(written, kind):
    whole = list(itertools.islice(source(written, kind).batches(0), 7))
    resumed = list(itertools.islice(source(written, kind).batches(4), 3))
    for one, two in zip(whole[4:], resumed, strict=True):
        assert_equal(one, two)
    assert_equal(source(written, kind).batch(5), whole[5])


@pytest.mark.parametrize("process", [(0, 1), (1, 2)])
def test_shards_give_the_batches_of_memory_in_the_same_order(written, process):
    _, found, _ = written
    rng = np.random.default_rng(0)
    targets = [
        rng.integers(0, 256, (len(c.frames), 6, 8), np.uint8) for c in found.clips
    ]
    memory, shards = (
        source(written, kind, "refine", targets, process)
        for kind in ("memory", "tfrecord")
    )
    assert memory.num_pairs == shards.num_pairs == 7
    both = zip(memory.batches(1), shards.batches(1), strict=False)
    for one, two in itertools.islice(both, 9):
        assert one.frames.shape[0] == 2 // process[1]
        assert_equal(one, two)


@pytest.mark.data
def test_shards_give_the_pixels_of_memory_on_real_jpeg_files(shared, tmp_path):
    config = clip_writer.config(
        shared / "data" / "DAVIS-240p",
        "davis",
        resolution="240p",
        sequences=("rollerblade",),
        partial=True,
    )
    found = clips.find_clips(config.data)
    folder = files.FlowFolder(tmp_path / "flow", "test")
    for pair in clips.pairs(found):
        pair_writer.write_flow(folder, found[0], pair)
    pairs = training_set.find(config, found, folder)
    builders.write_shards(pairs, tmp_path / pipeline.SHARDS)
    written = config, pairs, tmp_path
    memory, shards = (source(written, kind) for kind in ("memory", "tfrecord"))
    both = zip(memory.batches(0), shards.batches(0), strict=False)
    for one, two in itertools.islice(both, 3):
        assert_equal(one, two)


def test_tensorflow_never_sees_an_accelerator():
    tf = pipeline.tensorflow()
    assert tf.config.get_visible_devices("GPU") == []


def test_targets_follow_their_frames(written):
    _, found, _ = written
    targets = [
        np.full((len(c.frames), 6, 8), 50 * number, np.uint8)
        + np.arange(len(c.frames), dtype=np.uint8).reshape(-1, 1, 1)
        for number, c in enumerate(found.clips)
    ]
    batch = source(written, targets=targets).batch(0)
    for index, target in zip(batch.pair, batch.target, strict=True):
        pair = found.pairs[index]
        assert (target[0] == 50 * pair.clip + pair.first).all()
        assert (target[1] == 50 * pair.clip + pair.second).all()
    with pytest.raises(errors.UserError, match=r"cat: targets are \(3, 6, 8\)"):
        source(written, targets=[targets[0][:3], targets[1]])


def test_frames_may_be_memory_mapped(written, tmp_path):
    _, found, _ = written
    frames = training_set.read_frames(found)
    for number, array in enumerate(frames):
        np.save(tmp_path / f"{number}.npy", array)
    mapped = [np.load(tmp_path / f"{n}.npy", mmap_mode="r") for n in range(len(frames))]
    flows = training_set.read_flows(found)
    places = order.Order(len(found.pairs), 4, seed=0)
    assert_equal(
        pipeline.MemorySource(mapped, flows, found.pairs, places).batch(1),
        source(written).batch(1),
    )


def test_camera_motion_is_subtracted_on_request(written):
    config, found, _ = written
    plain = training_set.read_flows(found)
    config = config.copy_and_resolve_references()
    config.flow.background = "homography"
    less = training_set.find(config, found.clips, found.flow)
    for with_camera, without in zip(plain, training_set.read_flows(less), strict=True):
        moved = with_camera.astype(np.float32) - without
        np.testing.assert_allclose(moved[..., 0], 2.0, atol=0.02)
        np.testing.assert_allclose(moved[..., 1], -1.0, atol=0.02)


def test_clips_of_different_sizes_are_named_and_one_size_is_accepted(tmp_path):
    for name, size in (("a", (48, 64)), ("b", (32, 64)), ("c", (48, 64))):
        clip_writer.write_clip(tmp_path / name, 3, size=size, side=10)
    config = clip_writer.config(tmp_path)
    folder = files.FlowFolder(tmp_path / "flow", "test")
    with pytest.raises(errors.UserError, match=r"48x64.*\n.*b is 32x64") as caught:
        training_set.find(config, clips.find_clips(config.data), folder)
    assert "data.size" in caught.value.fix
    config.data.size = (48, 64)
    same = training_set.find(config, clips.find_clips(config.data), folder)
    assert (same.size, len(same.pairs)) == ((48, 64), 6)


def test_every_flow_defect_is_told_at_once(tmp_path):
    _, found = pair_writer.write_training_set(tmp_path, {"cat": 10})
    clip, path = found.clips[0], found.flow.path
    path("cat", 0, "forward").unlink()
    data = path("cat", 1, "backward").read_bytes()
    path("cat", 1, "backward").write_bytes(data[: len(data) // 2])
    pair_writer.write_flow(found.flow, clip, found.pairs[2], (12, 16))
    good = files.read_flow(path("cat", 3, "forward"))
    files.write_flow(path("cat", 3, "forward"), np.full((24, 32, 2), np.nan), good.meta)
    other = files.FlowMeta("cat", 4, "forward", 1, (99, 99), "test", "test")
    files.write_flow(path("cat", 4, "forward"), good.flow, other)
    path("cat", 5, "forward").write_bytes(path("cat", 6, "forward").read_bytes())
    for check in (training_set.read_flows, training_set.check_flows):
        with pytest.raises(errors.UserError) as caught:
            check(found)
        told = caught.value.found
        assert "6 problem(s)" in told
        for pair, words in enumerate(
            ("missing", "damaged", "grid is (12, 16)", "not finite", "(99, 99)", "6")
        ):
            (line,) = (x for x in told.splitlines() if f"pair {pair}-" in x)
            assert words in line


def test_a_set_larger_than_memory_is_refused_before_decoding(written, monkeypatch):
    monkeypatch.setattr(pipeline.os, "sysconf", lambda name: 100)
    with pytest.raises(errors.UserError, match="memory needs") as caught:
        source(written)
    assert "tfrecord" in caught.value.fix


def test_an_unknown_source_is_refused(written):
    with pytest.raises(errors.UserError, match=r"data\.source='disk'"):
        source(written, "disk")


def test_memory_sources_do_without_tensorflow():
    code = (
        "import sys; sys.modules['tensorflow'] = sys.modules['tensorflow_datasets'] = "
        "None; from imas_jax.data import pipeline; import imas_jax.stages.prepare"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_prefetched_items_come_in_order_and_errors_in_their_place():
    def items():
        yield from range(5)
        raise ValueError("sixth")

    out = pipeline.prefetch(items(), 2)
    assert [next(out) for _ in range(5)] == list(range(5))
    with pytest.raises(ValueError, match="sixth"):
        next(out)
    assert list(pipeline.prefetch(iter("abc"), 1)) == ["a", "b", "c"]


def test_the_prefetch_thread_draws_ahead_and_ends_with_its_consumer():
    drawn = []
    out = pipeline.prefetch((drawn.append(i) or i for i in itertools.count()), 2)
    next(out)
    deadline = time.monotonic() + 5
    while len(drawn) < 3 and time.monotonic() < deadline:
        time.sleep(0.01)
    assert 3 <= len(drawn) <= 4
    out.close()
    while any(t.name == "prefetch" for t in threading.enumerate()):
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_frames_apart_cover_every_frame_twice_and_want_no_flow(written):
    config, found, root = written
    less = training_set.apart(found)
    for number, clip in enumerate(found.clips):
        pairs = [pair for pair in less.pairs if pair.clip == number]
        count = len(clip.frames)
        for side in ("first", "second"):
            assert sorted(getattr(pair, side) for pair in pairs) == list(range(count))
        assert all(pair.first != pair.second for pair in pairs)
    nowhere = dataclasses.replace(less, background="homography")
    batches = pipeline.make_source(config, nowhere, "discover", root / "nothing")
    batch = batches.batch(0)
    assert not batch.flow_forward.any()
    pair = less.pairs[batch.pair[0]]
    frame = found.clips[pair.clip].read(pair.second)
    np.testing.assert_array_equal(batch.frames[0, 1], frame)
    assert training_set.memory_needed(less) < training_set.memory_needed(found)
