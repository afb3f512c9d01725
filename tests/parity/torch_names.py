"""The project's networks, filled with the folder's weights through the real loader."""

from pathlib import Path

import jax
import numpy as np
from flax import traverse_util

from configs import davis
from imas_jax.models import imas, pretrained, torch_files


def network_config(**model):
    config = davis.get_config()
    config.model.update({"dropout": 0.0} | model)
    return config


def variables_of(authors, config, dtype=np.float32):
    """Return the whole network's variables, drawn by the authors' names."""
    model = imas.make_model(config)
    frames = jax.numpy.zeros((1, 2, 32, 32, 3))
    shapes = jax.eval_shape(
        lambda key: model.init(key, frames, train=False), jax.random.key(0)
    )
    names = pretrained.authors_names(shapes, "", averaged=False)
    leaves = traverse_util.flatten_dict(shapes)
    tensors = {
        name: authors.recipe.param(
            name, torch_files.torch_shape(leaves[path].shape), authors.seed
        )
        for path, name in names.items()
    }
    file = pretrained.recognise(Path("recipe"), tensors, config.model.backbone)
    filled = pretrained.fill_network(shapes, file)
    return jax.tree.map(lambda leaf: np.asarray(leaf, dtype), filled)


def by_name(variables, averaged=False):
    """Return the authors' name -> our leaf, in torch's layout."""
    names = pretrained.authors_names(variables, "", averaged)
    leaves = traverse_util.flatten_dict(variables)
    return {name: to_torch(leaves[path]) for path, name in names.items()}


def to_torch(leaf):
    """Turn (h, w, in, out) into (out, in, h, w); vectors stay."""
    leaf = np.asarray(leaf)
    return leaf if leaf.ndim < 4 else leaf.transpose(3, 2, 0, 1)


def to_channels_first(maps):
    return np.moveaxis(np.asarray(maps), -1, -3)


def to_channels_last(maps):
    return np.moveaxis(np.asarray(maps), -3, -1)


def error(ours, theirs):
    """Return max |ours - theirs| / max |theirs|; layouts may differ by 1-axes."""
    ours = np.asarray(ours, np.float64).reshape(np.shape(theirs))
    theirs = np.asarray(theirs, np.float64)
    scale = np.abs(theirs).max()
    return np.abs(ours - theirs).max() / (scale if scale > 0 else 1.0)


def norms(tensors):
    return np.array([np.linalg.norm(np.asarray(t, np.float64)) for t in tensors])


def limit(floor):
    """Return ten times the rounding floor; below float32's own step it is luck."""
    return 10 * max(float(floor), 2.0**-24)
