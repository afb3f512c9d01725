"""A released checkpoint is predicted and scored as it is, without any training."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import traverse_util
from tiny import tiny_config, write_clip

from imas_jax import protocol
from imas_jax.models import imas, pretrained, torch_files
from imas_jax.runs.run import Run
from imas_jax.stages import network

pytestmark = pytest.mark.slow


def shapes_of(config):
    model = imas.make_model(config)
    frames = jnp.zeros((1, 2, 32, 32, 3))
    return jax.eval_shape(
        lambda key: model.init(key, frames, train=False), jax.random.key(0)
    )


def authors_tensors(shapes):
    """Return random weights of a network under the authors' names."""
    rng = np.random.default_rng(0)
    leaves = traverse_util.flatten_dict(shapes)
    return {
        key: rng.uniform(0.5, 1, torch_files.torch_shape(leaves[name].shape))
        for averaged in (False, True)
        for name, key in pretrained.authors_names(shapes, "model.", averaged).items()
    }


def test_without_steps_a_released_checkpoint_is_the_result_as_it_is(tmp_path):
    write_clip(tmp_path / "clip", frames=3)
    config = tiny_config(tmp_path / "clip", tmp_path / "run")
    config.model.update({"backbone": "resnet18", "motion_width": 4, "width": 4})
    config.discover.steps = config.refine.steps = 0
    shapes = shapes_of(config)
    tensors = authors_tensors(shapes)
    np.savez(tmp_path / "released.npz", **tensors)
    config.model.weights = str(tmp_path / "released.npz")
    config.model.averaged = True
    run = Run(config.lock(), protocol.STAGES)
    run.make("discover")
    state = network.final_state(run.config, run.folder("discover"), "discover")
    leaves = traverse_util.flatten_dict(state.variables)
    names = pretrained.authors_names(shapes, "model.", averaged=True)
    for name, key in names.items():
        expected = tensors[key]
        if name[-1] == "kernel":
            expected = torch_files.to_kernel(expected)
        np.testing.assert_allclose(leaves[name], expected, rtol=1e-6)
