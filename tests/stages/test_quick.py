"""configs/video.py:quick: masks of the motion evidence alone, nothing is learned."""

import cv2
import numpy as np
import pytest
from tiny import write_clip

from configs import video
from imas_jax import protocol
from imas_jax.errors import UserError
from imas_jax.evaluation import metrics
from imas_jax.stages import evaluate, settle, soft_masks


def config_of(root, workdir):
    config = video.get_config("quick")
    config.data.update({"root": str(root), "layout": "davis", "partial": True})
    config.data.split = ""
    config.workdir, config.target.workers = str(workdir), 1
    return config


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """Run the recipe on a moving square, annotated as DAVIS is."""
    root = tmp_path_factory.mktemp("quick")
    truth = write_clip(root / "JPEGImages/480p/square", size=(96, 128))
    for path in sorted((root / "JPEGImages/480p/square").iterdir()):
        cv2.imwrite(str(path.with_suffix(".jpg")), cv2.imread(str(path)))
        path.unlink()
    folder = root / "Annotations/480p/square"
    folder.mkdir(parents=True)
    for t, mask in enumerate(truth):
        cv2.imwrite(str(folder / f"{t:05d}.png"), 255 * mask.astype(np.uint8))
    return protocol.run(config_of(root, root / "run")), truth, root


def test_it_finds_what_moves_and_trains_nothing(finished):
    run, truth, _ = finished
    folder = run.workdir / "predict/masks/square"
    found = [soft_masks.read_png(path) for path in sorted(folder.iterdir())]
    overlap = [metrics.jaccard(a, b) for a, b in zip(found, truth, strict=True)]
    assert np.mean(overlap) > 0.6
    assert not list(run.workdir.glob("*/checkpoints"))


def test_soft_masks_are_the_evidence(finished):
    run, _, _ = finished
    told = np.load(run.workdir / "motion/refined/square.npy").astype(np.float32)
    stood_in = np.load(run.workdir / "predict/soft/square.npy").astype(np.float32)
    assert run.values("align")["channels"] == [1]
    size = stood_in.shape[1:3][::-1]
    for one, seen in zip(told, stood_in, strict=True):
        again = cv2.resize(one[..., 0], size, interpolation=cv2.INTER_AREA)
        np.testing.assert_allclose(seen.sum(axis=-1), 1, atol=2e-3)
        assert np.abs(seen[..., 1] - again).mean() < 0.02


def test_nothing_is_said_of_a_network(finished, caplog):
    _, _, root = finished
    with caplog.at_level("INFO"):
        settle.settle(config_of(root, root / "other"))
    assert "flow.size = " in caplog.text
    assert "from scratch" not in caplog.text
    assert "model." not in caplog.text


def test_no_row_of_its_tables_is_a_networks(finished):
    run, _, _ = finished
    labels = [entry.label for entry in evaluate.read_entries(run)]
    assert len(labels) == 4
    assert labels[-1].startswith("final masks, CRF")
    assert not any(label.startswith("stage") for label in labels)
    assert (run.workdir / "report/report.html").is_file()


def test_what_learned_nothing_cannot_be_restored(finished, tmp_path):
    run, _, root = finished
    config = video.get_config()
    config.data.update({"root": str(root), "layout": "davis", "partial": True})
    config.data.split = ""
    config.workdir, config.restore = str(tmp_path), str(run.workdir)
    with pytest.raises(UserError, match="quick"):
        protocol.run(config)


@pytest.mark.parametrize("change", [{"refine.steps": 3}, {"data.frames": 4}])
def test_what_asks_for_a_network_after_all_is_refused(finished, tmp_path, change):
    _, _, root = finished
    config = config_of(root, tmp_path / "run").unlock()
    config.update_from_flattened_dict(change)
    with pytest.raises(UserError, match=r"discover\.steps = 0") as told:
        protocol.run(config)
    assert next(iter(change)) in str(told.value)
    assert not (tmp_path / "run/flow").exists()


def test_an_unknown_variant_is_named():
    with pytest.raises(ValueError, match=r"'quik'.*'quick'"):
        video.get_config("quik")
