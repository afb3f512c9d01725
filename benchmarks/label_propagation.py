r"""What features know of objects: a mask carried to later frames by nearest neighbours.

    python benchmarks/label_propagation.py --root=DAVIS-240p --backbone=resnet18 \
        [--weights=FILE,FILE,...] [--layer=3] [--sequences=flamingo,tennis,...] [--each]
        [--statistics=frames]

Annotations only score. Frames are brought to 832x480, a layer's features to a grid of
30x52 (averaged where they are finer), and the mean of frame 0's removed from them.
Each place of frames 10 and 20 takes the mask of frame 0 from its 5 nearest neighbours
there, by cosine, weighted by a softmax at temperature 0.07. J is on that grid, where a
place is object that is more object than not; the mean is over frames, then sequences.

Rows: colours alone, a random network (batch norm with the statistics of the frames it
sees, since it has learned none), then each file of `--weights` (`*` is a wildcard): so
the files that stage pretrain keeps while it trains make its learning curve.
"""

import functools
import glob
from collections.abc import Callable, Iterator
from pathlib import Path

import cv2
import jax
import jax.numpy as jnp
import numpy as np
from absl import app, flags
from flax import traverse_util

from imas_jax import geometry
from imas_jax.configs import davis
from imas_jax.data import annotations, clips, images
from imas_jax.data.augment import normalize
from imas_jax.evaluation import metrics
from imas_jax.models import pretrained
from imas_jax.models.segmenter import BACKBONES

ROOT = flags.DEFINE_string("root", None, "DAVIS folder", required=True)
SEQUENCES = flags.DEFINE_list("sequences", [], "only these")
BACKBONE = flags.DEFINE_string("backbone", "resnet50", "of the weights")
WEIGHTS = flags.DEFINE_list("weights", [], "files that model.weights takes")
LAYER = flags.DEFINE_integer("layer", 0, "stage of the backbone, from 1; 0 is each")
RANDOM = flags.DEFINE_boolean("random", True, "also colours and a random network")
SEED = flags.DEFINE_integer("seed", 0, "of the random network")
STATISTICS = flags.DEFINE_enum(
    "statistics",
    "file",
    ["file", "frames"],
    "of batch norm in weights: what was learned, or of each frame as the random has",
)
EACH = flags.DEFINE_boolean("each", False, "also a row for each sequence")

SIZE = (480, 832)  # (h, w) frames are brought to
GRID = (30, 52)  # (h, w) of what is compared
FRAMES = (10, 20)
NEIGHBOURS, TEMPERATURE = 5, 0.07

# A clip's frame -> features of each layer, on the grid.
Features = Callable[[np.ndarray], list[np.ndarray]]


def main(_: list[str]) -> None:
    config = davis.get_config()
    config.data.update({"root": ROOT.value, "layout": "davis", "split": ""})
    config.data.sequences = tuple(SEQUENCES.value)
    found = clips.find_clips(config.data)
    truths = {
        clip.name: annotations.annotated_frames(config.data, clip) for clip in found
    }
    for name, features, layers in rows():
        scores = {clip.name: score(clip, truths[clip.name], features) for clip in found}
        for layer in range(layers):
            if LAYER.value and layers > 1 and layer + 1 != LAYER.value:
                continue
            which = f"{name}, layer {layer + 1}" if layers > 1 else name
            if EACH.value:
                for sequence, values in scores.items():
                    print(f"| {which} | {sequence} | {np.mean(values[layer]):.3f} |")
            mean = np.mean([np.mean(values[layer]) for values in scores.values()])
            print(f"| {which} | mean of {len(scores)} | {mean:.3f} |", flush=True)


def rows() -> Iterator[tuple[str, Features, int]]:
    """Yield names, features and how many layers these have."""
    record = BACKBONES[BACKBONE.value]
    # As the network was trained: the coarsest stride is the published one's.
    model = record.build(record.width, record.strides[-1], None, None)
    blank = jnp.zeros((1, *SIZE, 3))
    layers = len(
        jax.eval_shape(
            lambda x: model.init_with_output(jax.random.key(0), x, False)[0], blank
        )
    )
    if RANDOM.value:
        yield "colours", colours, 1
        variables = start(model)
        yield f"random {BACKBONE.value}", network(model, variables, True), layers
    for path in (Path(p) for name in WEIGHTS.value for p in sorted(glob.glob(name))):
        variables = pretrained.load_backbone(path, BACKBONE.value)
        own = STATISTICS.value == "frames"
        yield path.stem, network(model, variables, own), layers


def start(model) -> dict:
    """Start a network as stage pretrain does: every batch norm with scale 1."""
    frames = jnp.zeros((1, 64, 64, 3))
    made = jax.jit(lambda: model.init(jax.random.key(SEED.value), frames, False))()
    return traverse_util.path_aware_map(
        lambda path, leaf: jnp.ones_like(leaf) if path[-1] == "scale" else leaf, made
    )


def colours(frame: np.ndarray) -> list[np.ndarray]:
    """Return the frame itself."""
    return [
        cv2.resize(images.resize(frame, SIZE), GRID[::-1], None, 0, 0, cv2.INTER_AREA)
    ]


def network(model, variables, own_statistics: bool) -> Features:
    """Return a network's stages."""
    record = BACKBONES[BACKBONE.value]

    @jax.jit
    def run(variables, frame):
        x = record.renormalize(normalize(frame.astype(jnp.float32))[None])
        stages = model.apply(variables, x, own_statistics, mutable=["batch_stats"])[0]
        return [on_grid(stage[0]) for stage in stages]

    def features(frame: np.ndarray) -> list[np.ndarray]:
        return [np.asarray(x) for x in run(variables, images.resize(frame, SIZE))]

    return features


def on_grid(features: jax.Array) -> jax.Array:
    """Average features over the grid's places, or resize them to it bilinearly."""
    h, w = features.shape[:2]
    if h % GRID[0] == 0 and w % GRID[1] == 0:
        parts = features.reshape(GRID[0], h // GRID[0], GRID[1], w // GRID[1], -1)
        return parts.mean(axis=(1, 3))
    return geometry.resize(features, GRID)


def score(clip, truths, features: Features) -> list[list[float]]:
    """Return J of the carried masks, by layer and frame."""
    known = truth_on_grid(truths[0])
    first = features(clip.read(0))
    found = [[] for _ in first]
    for t in FRAMES:
        truth = truth_on_grid(truths[t]) > 0.5
        for layer, (a, b) in enumerate(zip(first, features(clip.read(t)), strict=True)):
            carried = propagate(a, b, known) > 0.5
            found[layer].append(metrics.jaccard(carried, truth))
    return found


@functools.cache
def truth_on_grid(annotation) -> np.ndarray:
    """Return how much of each place is object, in [0, 1]."""
    mask = annotations.read_annotation(annotation).astype(np.float32)
    return cv2.resize(mask, GRID[::-1], interpolation=cv2.INTER_AREA)


def propagate(first: np.ndarray, later: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """Carry a mask of the first frame to a later one."""
    mean = first.reshape(-1, first.shape[-1]).astype(np.float64).mean(axis=0)
    a, b = (unit(x.reshape(-1, x.shape[-1]) - mean) for x in (first, later))
    alike = b @ a.T
    nearest = np.argpartition(-alike, NEIGHBOURS, axis=1)[:, :NEIGHBOURS]
    weights = np.exp(np.take_along_axis(alike, nearest, axis=1) / TEMPERATURE)
    weights /= weights.sum(axis=1, keepdims=True)
    return (weights * mask.reshape(-1)[nearest]).sum(axis=1).reshape(mask.shape)


def unit(x: np.ndarray) -> np.ndarray:
    """Give vectors length 1."""
    return x / np.maximum(np.linalg.norm(x, axis=-1, keepdims=True), 1e-12)


if __name__ == "__main__":
    app.run(main)
