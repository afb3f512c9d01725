import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from clip_writer import write_clip

from imas_jax.configs import davis, densecl
from imas_jax.data import stills
from imas_jax.errors import UserError
from imas_jax.models import imas, pretrained, torch_files
from imas_jax.protocol import STAGES, TOOLS
from imas_jax.runs.run import Run
from imas_jax.stages import fields
from imas_jax.tools import pretrain


def tiny(root, workdir, **how):
    config = densecl.get_config("small")
    config.data.root, config.workdir = str(root), str(workdir)
    config.model.update({"backbone": "unet", "width": 4, "output_stride": 8})
    config.pretrain.update(
        {"steps": 4, "batch_size": 8, "groups": 8, "queue": 16, "hidden": 8}
        | {"features": 4, "crop": 32, "short_side": 48, "checkpoint_every": 2}
        | {"log_every": 2, "keep_every": 2, "stage": -1}
        | how
    )
    fields.check(config, ("pretrain",))
    return config


def make(config):
    Run(config.lock(), (*STAGES, *TOOLS)).make("pretrain")


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    folder = tmp_path_factory.mktemp("clips")
    for name in "ab":
        write_clip(folder / name, 5)
    return folder


@pytest.fixture(scope="module")
def trained(root, tmp_path_factory):
    workdir = tmp_path_factory.mktemp("pretrain")
    make(tiny(root, workdir))
    return workdir / "pretrain"


def taken(path):
    """Return what `model.weights` makes of a file: the backbone of a whole network."""
    config = davis.get_config()
    config.model.update({"backbone": "unet", "width": 4, "head_width": 8})
    model = imas.make_model(config)
    frames = jnp.zeros((1, 2, 32, 32, 3))
    shapes = jax.eval_shape(
        lambda key: model.init(key, frames, train=False), jax.random.key(0)
    )
    filled = pretrained.load_into(shapes, path, "unet")
    return {kind: tree["backbone"] for kind, tree in filled.items()}


def test_it_writes_weights_that_a_network_takes(trained):
    found = taken(trained / "backbone.safetensors")
    tensors = torch_files.read_checkpoint(trained / "backbone.safetensors")
    kernel = found["params"]["down2_conv"]["kernel"]
    np.testing.assert_array_equal(
        kernel.transpose(3, 2, 0, 1), tensors["down2_conv.weight"]
    )
    assert not any("neck" in name for name in tensors)
    # Statistics were gathered and what was learned from has moved.
    assert np.abs(found["batch_stats"]["down4_bn"]["mean"]).max() > 0
    early = taken(trained / "backbone-0000002.safetensors")
    assert not np.array_equal(early["params"]["down2_conv"]["kernel"], kernel)
    log = [json.loads(x) for x in (trained / "metrics.jsonl").read_text().splitlines()]
    assert [record["step"] for record in log] == [1, 2, 3, 4]
    assert all(np.isfinite(list(record.values())).all() for record in log)


def test_a_killed_run_goes_on_to_the_same_bits(root, trained, tmp_path, monkeypatch):
    class Killed(stills.Source):
        def batch(self, step):
            if step == 3:
                raise KeyboardInterrupt
            return super().batch(step)

    with monkeypatch.context() as patched:
        patched.setattr(stills, "Source", Killed)
        with pytest.raises(KeyboardInterrupt):
            make(tiny(root, tmp_path))
    folder = tmp_path / "pretrain"
    assert not (folder / "backbone.safetensors").exists()
    make(tiny(root, tmp_path))
    name = "backbone.safetensors"
    assert (folder / name).read_bytes() == (trained / name).read_bytes()
    log = (folder / "metrics.jsonl").read_text()
    assert log == (trained / "metrics.jsonl").read_text()


def test_other_settings_do_not_go_on_from_a_runs_checkpoints(root, trained):
    config = tiny(root, trained.parent, temperature=0.1)
    with pytest.raises(UserError, match=r"pretrain\.temperature: was 0\.2, is 0\.1"):
        make(config)


def test_a_backbone_that_cannot_be_is_refused_before_anything_is_read(tmp_path):
    config = tiny("nowhere", tmp_path, stage=2)
    config.model.output_stride = 16
    with pytest.raises(UserError, match=r"output_stride: 16, not 8"):
        pretrain.check_backbone(config)
    config.model.output_stride = 8
    with pytest.raises(UserError, match=r"pretrain\.stage: 2, unet has 2, from 0"):
        pretrain.check_backbone(config)


def test_batches_that_devices_or_queues_cannot_share_are_refused(root, tmp_path):
    for how, said in (
        ({"batch_size": 7}, "multiple of the number of devices"),
        ({"groups": 4}, "groups = 4"),
        ({"queue": 20}, "queue = 20"),
    ):
        with pytest.raises(UserError, match=said):
            make(tiny(root, tmp_path, **how))
