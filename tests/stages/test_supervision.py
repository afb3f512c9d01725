"""Weights from human labels: refused, and where they are allowed said everywhere."""

import dataclasses

import cv2
import numpy as np
import pytest
from tiny import tiny_config, write_clip
from torch_writer import torch_resnet

from imas_jax import files, protocol
from imas_jax.errors import UserError
from imas_jax.models import fetching, published, segmenter
from imas_jax.models.resnet import RESNET18
from imas_jax.runs import records
from imas_jax.runs.run import Run
from imas_jax.stages import checks, supervision

NAME = "resnet18_imagenet"
SAID = (
    "supervised weights: ResNet-18, a classifier (IMAGENET1K_V1), trained on "
    "ImageNet-1k with its class labels (align.weights)"
)


@pytest.fixture
def config(tmp_path, monkeypatch):
    """A run on an annotated clip whose judge is a classifier, kept in the cache."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    frames = tmp_path / "data/JPEGImages/480p/clip"
    masks = write_clip(frames, frames=4)
    truth = tmp_path / "data/Annotations/480p/clip"
    truth.mkdir(parents=True)
    for t, mask in enumerate(masks):
        cv2.imwrite(str(truth / f"{t:05d}.png"), np.uint8(mask) * 255)
    for name in ("train", "val", "trainval"):
        listing = tmp_path / f"data/ImageSets/2016/{name}.txt"
        listing.parent.mkdir(parents=True, exist_ok=True)
        listing.write_text("clip\n")
    for frame in frames.glob("*.png"):
        cv2.imwrite(str(frame.with_suffix(".jpg")), cv2.imread(str(frame)))
        frame.unlink()
    path = fetching.place(NAME)
    path.parent.mkdir(parents=True)
    with path.open("wb") as file:
        np.savez(file, **torch_resnet(18), **{"fc.weight": np.zeros((9, 8))})
    entry = dataclasses.replace(
        published.TABLE[NAME], url="", hashes=(f"sha256:{files.digest(path)}",)
    )
    monkeypatch.setitem(published.TABLE, NAME, entry)
    small = dataclasses.replace(RESNET18, width=4)
    monkeypatch.setitem(segmenter.BACKBONES, "resnet18", small)
    config = tiny_config(tmp_path / "data", tmp_path / "run")
    config.data.update({"layout": "davis", "partial": True})
    config.align.update({"score": "semantic", "features": "weights"})
    config.align.update({"weights": NAME, "backbone": "resnet18"})
    config.discover.steps = config.refine.steps = 0
    config.watch.tensorboard = False
    return config


def test_a_run_is_refused_before_any_work(config):
    with pytest.raises(UserError, match="learned from human labels"):
        checks.check(config, "report")
    config.model.allow_supervised = True
    checks.check(config, "report")


@pytest.mark.slow
def test_every_table_and_the_report_say_so_and_so_do_runs_that_follow(
    config, tmp_path, caplog
):
    config.model.allow_supervised = True
    run = Run(config.copy_and_resolve_references().lock(), protocol.STAGES)
    with caplog.at_level("INFO", logger="absl"):
        run.make("report")
    for name in ("evaluate/tables.md", "report/report.html"):
        assert SAID in (run.workdir / name).read_text()
    assert (
        " (supervised weights),"
        in (run.workdir / "evaluate/per_sequence.csv").read_text()
    )
    printed = [r.getMessage() for r in caplog.records if "frame_mean" in r.getMessage()]
    assert printed
    assert all(SAID in text for text in printed)
    # By path it is the same run: nothing is made again.
    config.align.weights = str(fetching.place(NAME))
    again = Run(config.copy_and_resolve_references().lock(), protocol.STAGES)
    before = run.result("align")
    again.make("report")
    assert again.result("align") == before
    # Another run that takes its channel, and one that starts from its network.
    config.update({"restore": str(run.workdir), "restore_until": "align"})
    config.workdir = str(tmp_path / "restored")
    config.align.weights, config.model.allow_supervised = "", False
    restored = Run(config.copy_and_resolve_references().lock(), protocol.STAGES)
    restored.make("evaluate")
    assert SAID in (restored.workdir / "evaluate/tables.md").read_text()


def test_a_network_that_starts_from_such_weights_says_so_and_hands_it_on(
    config, tmp_path
):
    config.align.weights, config.model.weights = "", NAME
    config.model.allow_supervised = True
    told = supervision.of_start(config, "discover")
    assert told == [SAID.partition(": ")[2].replace("align.", "model.")]
    folder = tmp_path / "run/discover"
    (folder / "checkpoints").mkdir(parents=True)
    outputs = {supervision.NOTED: told}
    records.write_json(folder / "result.json", {"identity": "a", "outputs": outputs})
    config.model.update({"weights": "", "allow_supervised": False})
    config.discover.init = config.refine.init = str(tmp_path / "run")
    for stage in ("discover", "refine"):
        assert supervision.of_start(config, stage) == told
