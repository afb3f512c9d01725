from pathlib import Path

import clip_writer
import kitti_writer
import numpy as np
import pytest

from imas_jax import errors
from imas_jax.data import clips, imported_flow
from imas_jax.flow import estimators, files, formats
from imas_jax.stages import flow as flow_stage

COUNT = 5
ENDINGS = {"authors": ".npy", "motion_grouping": ".flo", "plain": ".png"}


@pytest.fixture
def setup(tmp_path):
    """Two clips that pan by 2 px, so that a direction can be told."""
    for name in ("dog", "cat"):
        clip_writer.write_clip(tmp_path / "frames" / name, COUNT, pan=2)
    config = clip_writer.config(tmp_path / "frames")
    config.flow.estimator = "import"
    config.flow.source = str(tmp_path / "flows")
    return config, clips.find_clips(config.data), tmp_path


def write(path: Path, flow: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    writers = {
        ".flo": formats.write_flo,
        ".png": kitti_writer.write,
        ".npy": np.save,
    }
    writers[path.suffix](path, flow)


def fill(root: Path, found, layout: str = "motion_grouping", between: str = "") -> None:
    """Write the flow of every pair as its program would; names are spelt out."""
    dis = estimators.Estimator(estimators.Dis())
    for clip in found:
        for t in range(len(clip.frames) - 1):
            both = dis(clip.read(t), clip.read(t + 1))
            first, second = f"{t:05d}", f"{t + 1:05d}"
            names = {
                "authors": [("Flows_NewCT", second), ("BackwardFlows_NewCT", second)],
                "motion_grouping": [("Flows_gap1", first), ("Flows_gap-1", second)],
                "plain": [("forward", first), ("backward", first)],
            }[layout]
            for (folder, name), flow in zip(names, both, strict=True):
                path = root / folder / between / clip.name / (name + ENDINGS[layout])
                write(path, flow)


def refusal(config, found, tmp_path) -> str:
    with pytest.raises(errors.UserError) as told:
        flow_stage.run(config, found, tmp_path / "out")
    assert not (tmp_path / "out").exists()
    return str(told.value)


@pytest.mark.parametrize("between", ["", "480p/"])
@pytest.mark.parametrize("layout", list(imported_flow.LAYOUTS))
def test_each_layout_gives_the_flow_of_the_right_pair(setup, layout, between):
    config, found, tmp_path = setup
    fill(tmp_path / "flows", found, layout, between)
    result = flow_stage.run(config, found, tmp_path / "out")
    assert result["computed"] == 2 * (COUNT - 1)
    target = flow_stage.flow_folder(config, tmp_path / "out")
    dis = estimators.Estimator(estimators.Dis())
    expected = dis(found[0].read(2), found[0].read(3))
    for direction, whole in zip(files.DIRECTIONS, expected, strict=True):
        stored = target.read(found[0].name, 2, direction)
        assert stored.meta.estimator == "import"
        error = stored.flow - files.half_resolution(whole)
        assert np.abs(error).max() < 0.03  # KITTI's steps and half precision


def test_a_second_import_does_nothing_until_a_file_changes(setup):
    config, found, tmp_path = setup
    fill(tmp_path / "flows", found)
    flow_stage.run(config, found, tmp_path / "out")
    assert flow_stage.run(config, found, tmp_path / "out")["computed"] == 0
    path = tmp_path / "flows/Flows_gap1/dog/00002.flo"
    write(path, formats.read(path) * np.float32(0.9))
    assert flow_stage.run(config, found, tmp_path / "out")["computed"] == 1


def test_all_mismatches_are_listed_before_anything_is_written(setup):
    config, found, tmp_path = setup
    root = tmp_path / "flows"
    fill(root, found)
    (root / "Flows_gap1/dog/00002.flo").unlink()
    write(root / "Flows_gap1/cat/00001.flo", np.zeros((30, 50, 2), np.float32))
    cut = root / "Flows_gap-1/cat/00003.flo"
    cut.write_bytes(cut.read_bytes()[:100])
    told = refusal(config, found, tmp_path)
    assert "3 problem(s)" in told
    assert "3 files for 4 pairs; 1 pair(s) without forward flow" in told
    assert "the first at frame 00002" in told
    assert "is (30, 50) (h, w), frames are (64, 96)" in told
    assert "truncated: 100 of" in told


def test_exchanged_directions_are_noticed(setup):
    config, found, tmp_path = setup
    root = tmp_path / "flows"
    fill(root, found, "plain")
    (root / "forward").rename(root / "x")
    (root / "backward").rename(root / "forward")
    (root / "x").rename(root / "backward")
    assert "dog: forward and backward flow are exchanged" in refusal(
        config, found, tmp_path
    )


def test_a_clip_without_flow_is_named(setup):
    config, found, tmp_path = setup
    fill(tmp_path / "flows", found[:1])
    told = refusal(config, found, tmp_path)
    assert "dog: no forward flow" in told
    assert "dog: no backward flow" in told


def test_a_folder_of_no_known_layout_lists_the_known_ones(setup):
    config, found, tmp_path = setup
    told = refusal(config, found, tmp_path)
    assert "Flows_NewCT/ and BackwardFlows_NewCT/" in told
    assert "Flows_gap1/ and Flows_gap-1/" in told


def test_few_unknown_pixels_take_their_neighbour_s_flow(setup):
    flow = np.zeros((10, 10, 2), np.float32)
    flow[:, 5:] = 3.0
    holes = flow.copy()
    holes[2, 1] = holes[7, 8] = np.nan
    assert (imported_flow.fill_unknown(holes, Path("a.flo")) == flow).all()
    holes = np.where(np.arange(10)[:, None] < 6, np.nan, flow)
    with pytest.raises(errors.UserError, match="knows 40 %"):
        imported_flow.fill_unknown(holes, Path("a.flo"))


def test_flow_too_fast_to_be_stored_counts_as_unknown():
    flow = np.ones((8, 8, 2), np.float32)
    flow[2, 3] = 1e30
    filled = imported_flow.fill_unknown(flow, Path("a.flo"))
    np.testing.assert_array_equal(filled, 1)
    with pytest.raises(errors.UserError, match="knows 0 %"):
        imported_flow.fill_unknown(flow * 1e6, Path("a.flo"))


def test_flow_at_the_files_size_follows_data_size(setup):
    config, found, tmp_path = setup
    fill(tmp_path / "flows", found)
    config.data.size = (32, 48)
    small = clips.find_clips(config.data)
    importer = imported_flow.open_folder(tmp_path / "flows")
    pair = clips.pairs(small)[0]
    forward, _ = importer.read(small[0], pair)
    native, _ = importer.read(found[0], pair)
    assert forward.shape == (32, 48, 2)
    assert abs(np.median(forward[..., 0]) - np.median(native[..., 0]) / 2) < 0.05
