import os

import clip_writer
import cv2
import numpy as np
import pytest

from imas_jax.data import clips, imported_flow
from imas_jax.stages import flow


@pytest.fixture
def setup(tmp_path):
    clip_writer.write_clip(tmp_path / "frames" / "dog", 4, pan=2)
    config = clip_writer.config(tmp_path / "frames")
    return config, clips.find_clips(config.data), tmp_path


def test_exported_flo_files_import_again(setup):
    config, found, tmp_path = setup
    config.flow.export = "flo"
    result = flow.run(config, found, tmp_path / "flow")
    importer = imported_flow.open_folder(tmp_path / result["export"])
    imported_flow.check(importer, found, (1,))
    forward, backward = importer.read(found[0], clips.pairs(found)[1])
    target = flow.flow_folder(config, tmp_path / "flow")
    for direction, whole in (("forward", forward), ("backward", backward)):
        stored = target.read("dog", 1, direction).flow
        halved = cv2.resize(whole, (48, 32), interpolation=cv2.INTER_AREA)
        assert np.abs(halved - stored).mean() < 0.1
    assert np.median(forward[..., 0]) < -1.5 < 1.5 < np.median(backward[..., 0])


def test_colour_pictures_have_the_frames_size_and_are_written_once(setup):
    config, found, tmp_path = setup
    config.flow.export = "color"
    folder = flow.run(config, found, tmp_path / "flow")["export"]
    pictures = sorted((tmp_path / folder).rglob("*.png"))
    assert len(pictures) == 6
    assert cv2.imread(str(pictures[0])).shape == (64, 96, 3)
    before = [p.stat().st_mtime_ns for p in pictures]
    flow.run(config, found, tmp_path / "flow")
    assert [p.stat().st_mtime_ns for p in pictures] == before
    # Made again by a host whose clock is years behind.
    made_again = sorted((tmp_path / "flow").rglob("*.npz"))[0]
    os.utime(made_again, ns=(10**18, 10**18))
    flow.run(config, found, tmp_path / "flow")
    after = [p.stat().st_mtime_ns for p in pictures]
    assert sorted(set(after) - set(before)) == [10**18]
