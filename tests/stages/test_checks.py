import dataclasses
import hashlib
import sys

import file_server
import numpy as np
import pytest
from tiny import get_config, write_clip
from torch_writer import torch_resnet

from imas_jax import errors, protocol
from imas_jax.models import published
from imas_jax.report import drawing
from imas_jax.runs.run import Run
from imas_jax.stages import checks, evaluate


@pytest.fixture
def config(tmp_path):
    config = get_config()
    config.workdir = str(tmp_path / "run")
    return config


def refused(config, goal="report"):
    with pytest.raises(errors.UserError) as refusal:
        checks.check(config, goal)
    return str(refusal.value)


def test_a_sound_config_passes(config):
    checks.check(config, "report")


def test_a_batch_that_the_devices_cannot_share_is_refused(config):
    config.discover.batch_size = 7
    message = refused(config)
    assert "7 pairs" in message
    assert "batch_size to 8" in message


def test_everything_wrong_is_told_at_once(config, tmp_path):
    config.discover.batch_size = 7
    config.model.backbone = "resnet18"
    config.model.weights = str(tmp_path / "lost.pth")
    config.model.motion_width = 0
    message = refused(config)
    assert "7 pairs" in message
    assert "lost.pth" in message


@pytest.fixture
def of_a_set(config, tmp_path):
    """The config on a data set whose image set "val" is one of two sequences."""
    for name in ("seen", "kept"):
        write_clip(tmp_path / "JPEGImages/48p" / name, frames=2)
    lists = tmp_path / "ImageSets/48p"
    lists.mkdir(parents=True)
    for split, names in (("trainval", "seen\nkept\n"), ("val", "kept\n")):
        (lists / f"{split}.txt").write_text(names)
    config.data.update({"root": str(tmp_path), "resolution": "48p", "layout": "davis"})
    config.data.split, config.evaluate.split = "trainval", "val"
    return config


def test_sequences_of_which_none_will_be_scored_are_told_before_any_work(
    of_a_set, caplog
):
    of_a_set.data.sequences = ("seen", "kept")
    checks.check(of_a_set, "report")
    assert not caplog.records
    of_a_set.data.sequences = ("seen",)
    checks.check(of_a_set, "predict")
    assert not caplog.records
    checks.check(of_a_set, "report")
    (record,) = caplog.records
    assert "'val' has none of data.sequences (seen)" in record.getMessage()


@pytest.mark.parametrize(
    ("own", "scored"), [((), ["kept"]), (("seen", "kept"), ["kept"]), (("seen",), [])]
)
def test_sequences_are_scored_that_a_run_has_and_the_split_names(
    of_a_set, tmp_path, own, scored
):
    for name in ("seen", "kept"):
        truth = np.zeros((48, 64), bool)
        drawing.write_mask(tmp_path / f"Annotations/48p/{name}/00000.png", truth)
    of_a_set.data.sequences = own
    run = Run(of_a_set.lock(), protocol.STAGES)
    assert [one.clip.name for one in evaluate.annotated_clips(run)] == scored


def test_a_list_of_what_to_score_that_is_not_there_is_refused(of_a_set):
    of_a_set.evaluate.split = "test"
    assert "test" in refused(of_a_set)


def test_weights_that_do_not_fit_are_refused_before_any_work(config, tmp_path):
    np.savez(tmp_path / "r.npz", **{"conv1.weight": np.zeros((64, 3, 7, 7))})
    config.model.backbone = "resnet18"
    config.model.weights = str(tmp_path / "r.npz")
    message = refused(config)
    assert "layer4.1.bn2.running_var: missing" in message
    config.model.weights = str(tmp_path / "lost.pth")
    assert "lost.pth" in refused(config)


def test_weights_of_a_finished_stage_need_not_be_there_any_more(config, tmp_path):
    config.model.weights = str(tmp_path / "lost.pth")
    folder = tmp_path / "run" / "discover"
    folder.mkdir(parents=True)
    (folder / "result.json").write_text("{}")
    checks.check(config, "report")


def test_a_semantic_constraint_without_weights_is_refused(config):
    config.target.semantic_constraint = True
    assert "align.weights" in refused(config)


def test_a_semantic_constraint_may_name_features_that_want_no_weights(config):
    config.target.semantic_constraint = True
    config.align.features = "palette"
    checks.check(config, "report")


def test_a_crf_library_that_is_not_installed_is_refused_before_any_work(
    config, monkeypatch
):
    monkeypatch.setitem(sys.modules, "pydensecrf", None)
    config.crf.solver = "pydensecrf"
    assert "crf.solver=lattice" in refused(config)
    config.refine.steps = 0  # nothing left that would use it
    checks.check(config, "report")


def test_online_targets_that_cannot_be_made_are_refused_with_every_reason(config):
    config.target.when = "online"
    config.target.resolution, config.target.semantic_constraint = "frame", True
    config.align.features = "palette"
    message = refused(config)
    for field in ("refine.ema", "target.resolution", "target.semantic_constraint"):
        assert field in message
    config.target.resolution, config.target.semantic_constraint = "mask", False
    config.refine.ema = 0.9
    checks.check(config, "report")
    config.data.source = "device"
    assert "data.source: 'device', so that the host sees no batch" in refused(config)


def test_heads_alone_cannot_be_trained_on_what_wants_pixels_or_without_weights(config):
    config.model.trained, config.data.source = "heads", "tfrecord"
    config.target.when, config.augment.scale_flow = "online", True
    message = refused(config)
    for part in ("model.weights: ''", "data.source: 'tfrecord'", "augment.scale_flow"):
        assert part in message
    assert "target.when: 'online'" in message
    assert "--config.model.trained=all" in message


def test_flow_alone_asks_for_no_network(config, tmp_path):
    config.model.weights = str(tmp_path / "lost.pth")
    checks.check(config, "flow")


def test_weights_of_raft_for_another_estimator_are_refused(config):
    config.flow.weights = "raft_small"
    message = refused(config, "flow")
    assert "flow.weights = 'raft_small', but flow.estimator = 'dis' has none" in message
    assert "set --config.flow.estimator=raft" in message
    config.restore = "another run"  # which computes no flow
    checks.check(config, "flow")


def test_weights_of_raft_are_asked_for_before_any_work(config, tmp_path):
    config.flow.update({"estimator": "raft", "weights": str(tmp_path / "lost.pth")})
    assert "lost.pth" in refused(config, "flow")
    (tmp_path / "run/flow").mkdir(parents=True)
    (tmp_path / "run/flow/result.json").write_text("{}")
    checks.check(config, "flow")


def test_weights_by_name_say_what_backbone_they_want(config):
    config.model.weights = "dino_resnet50"
    message = refused(config)
    assert "but model.backbone = 'unet'" in message
    assert "--config.model.backbone=resnet50 --config.model.width=64 " in message


def test_weights_by_name_are_fetched_before_any_work_and_once(
    config, tmp_path, monkeypatch
):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    for name in ("http_proxy", "all_proxy", "HTTP_PROXY", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)
    np.savez(tmp_path / "file.npz", **torch_resnet(18))
    content = (tmp_path / "file.npz").read_bytes()
    with file_server.serving() as server:
        for name, network in (("dino_resnet50", "resnet18"), ("raft_small", "raft")):
            entry = dataclasses.replace(
                published.TABLE[name],
                network=network,
                url=server.offer(name, content),
                hashes=(f"sha256:{hashlib.sha256(content).hexdigest()}",),
            )
            monkeypatch.setitem(published.TABLE, name, entry)
        config.flow.update({"estimator": "raft", "weights": "raft_small"})
        config.model.update({"backbone": "resnet18", "weights": "dino_resnet50"})
        config.model.motion_width = 4
        for _ in range(2):
            checks.check(config, "report")
    assert server.asked == ["/raft_small", "/dino_resnet50"]
    kept = sorted((tmp_path / "cache/imas_jax/weights").glob("*.pth"))
    assert [path.name for path in kept] == ["dino_resnet50.pth", "raft_small.pth"]


def test_shards_without_tensorflow_are_refused_before_any_work(config, monkeypatch):
    find = checks.importlib.util.find_spec
    monkeypatch.setattr(
        checks.importlib.util,
        "find_spec",
        lambda name: None if name == "tensorflow" else find(name),
    )
    checks.check(config, "prepare")
    config.data.source = "tfrecord"
    for goal in ("prepare", "report"):
        assert "imas_jax[tfrecord]" in refused(config, goal)
    checks.check(config, "flow")


@pytest.mark.parametrize("stage", ["discover", "refine"])
def test_a_stage_with_nothing_to_learn_from_is_refused(config, stage):
    config[stage].motion_weight = 0.0
    if stage == "refine":
        checks.check(config, "report")  # equation 8 is left
        config.refine.appearance_weight = 0.0
    assert f"{stage}.motion_weight = 0" in refused(config)
