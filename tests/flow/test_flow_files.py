import dataclasses

import numpy as np
import pytest

from imas_jax import errors
from imas_jax.flow import files

META = files.FlowMeta("dog ünï", 3, "forward", 1, (40, 60), "dis", "abc", "1-2")


def field(seed: int = 0, scale: float = 8.0) -> np.ndarray:
    return np.random.default_rng(seed).normal(0, scale, (20, 30, 2)).astype(np.float32)


def test_a_field_comes_back_as_it_was_written(tmp_path):
    flow, homography = field(), np.array([[1, 0, 3.5], [0, 1, -2], [0, 0, 1.0]])
    path = tmp_path / "a" / "b.npz"
    files.write_flow(path, flow, META, homography, {"median": 2.5})
    back = files.read_flow(path)
    assert back.meta == META
    assert back.flow.dtype == np.float16
    assert (back.flow == flow.astype(np.float16)).all()
    assert (back.homography == homography).all()
    assert back.quality == {"median": 2.5}


def test_half_precision_costs_less_than_a_hundredth_of_a_pixel():
    flow = field(scale=10.0)
    assert np.abs(flow.astype(np.float16) - flow).max() < 0.02
    assert np.abs(flow.astype(np.float16) - flow).mean() < 0.002


def test_half_resolution_keeps_values_and_rounds_odd_sides_up():
    flow = np.broadcast_to(np.float32([6.0, -2.0]), (41, 61, 2)).copy()
    half = files.half_resolution(flow)
    assert half.shape == (21, 31, 2)
    np.testing.assert_allclose(
        half, np.broadcast_to([6.0, -2.0], half.shape), atol=1e-5
    )
    even = field()
    means = even.reshape(10, 2, 15, 2, 2).mean(axis=(1, 3))
    np.testing.assert_allclose(files.half_resolution(even), means, atol=1e-5)


def test_the_same_field_gives_the_same_bytes(tmp_path):
    for name in ("a.npz", "b.npz"):
        files.write_flow(tmp_path / name, field(), META, None, {"median": 1.0})
    assert (tmp_path / "a.npz").read_bytes() == (tmp_path / "b.npz").read_bytes()


def test_nothing_but_the_file_is_left_behind(tmp_path):
    files.write_flow(tmp_path / "a.npz", field(), META)
    assert [p.name for p in tmp_path.iterdir()] == ["a.npz"]


@pytest.mark.parametrize("share", [0.0, 0.1, 0.5, 0.9, 0.999])
def test_a_truncated_file_is_never_read_as_whole(tmp_path, share):
    path = tmp_path / "a.npz"
    files.write_flow(path, field(), META)
    data = path.read_bytes()
    path.write_bytes(data[: int(len(data) * share)])
    with pytest.raises(errors.UserError, match="truncated or damaged"):
        files.read_flow(path)


def test_any_flipped_byte_of_the_field_is_noticed(tmp_path):
    path = tmp_path / "a.npz"
    files.write_flow(path, field(), META)
    data = path.read_bytes()
    start = data.index(field().astype(np.float16).tobytes())
    for offset in (0, 700, 2399):
        broken = bytearray(data)
        broken[start + offset] ^= 0x10
        path.write_bytes(bytes(broken))
        with pytest.raises(errors.UserError, match="truncated or damaged"):
            files.read_flow(path)


def test_a_missing_file_names_the_stage_that_makes_it(tmp_path):
    with pytest.raises(errors.UserError, match="stage=flow"):
        files.read_flow(tmp_path / "gone.npz")


def test_another_format_version_is_not_read(tmp_path):
    path = tmp_path / "a.npz"
    files.write_flow(path, field(), dataclasses.replace(META, version=99))
    with pytest.raises(errors.UserError, match="version 99"):
        files.read_flow(path)


def test_a_folder_refuses_a_file_of_another_pair(tmp_path):
    folder = files.FlowFolder(tmp_path, "dis-1")
    files.write_flow(folder.path("dog", 4, "forward"), field(), META)
    with pytest.raises(errors.UserError, match="holds the flow of"):
        folder.read("dog", 4, "forward")


def test_every_pair_direction_and_gap_has_its_own_file(tmp_path):
    folder = files.FlowFolder(tmp_path, "dis-1")
    paths = {
        folder.path(clip, t, direction, gap)
        for clip in ("a", "b")
        for t in (0, 1, 11)
        for direction in files.DIRECTIONS
        for gap in (1, 2, 11)
    }
    assert len(paths) == 2 * 3 * 2 * 3


def test_a_settings_digest_changes_with_every_part():
    digests = [
        files.settings_digest("dis", 0),
        files.settings_digest("dis", 480),
        files.settings_digest("raft", 0),
        files.settings_digest("dis"),
    ]
    assert len(set(digests)) == 4
    assert digests[0] == files.settings_digest("dis", 0)
