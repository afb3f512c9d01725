"""Whether AMD's motion network has learned how a clip moves, and what its masks show.

    python benchmarks/amd.py --run=runs/amd --root=DAVIS-240p --sequences=bear,flamingo

AMD's masks follow the motion that its own network sees. For every fifteenth pair of a
clip its composed flow is held against DIS flow (mean distance, pixels of the frames it
saw), beside no motion at all and DIS's median everywhere; so is the photometric loss at
one size. Last: J of every channel. Annotations only score.
"""

from pathlib import Path

import cv2
import jax
import jax.numpy as jnp
import numpy as np
import plain_config  # before anything that reads a config
from absl import app, flags

from imas_jax import geometry, losses
from imas_jax.configs import amd
from imas_jax.runs import restoring
from imas_jax.stages import network
from imas_jax.stages.predictor import inference_size, sample

del plain_config
RUN = flags.DEFINE_string("run", "runs/amd", "a run that finished stage discover")
ROOT = flags.DEFINE_string("root", None, "DAVIS folder", required=True)
SEQUENCES = flags.DEFINE_list("sequences", ["bear"], "clips")
SHORT_SIDE = flags.DEFINE_integer("short_side", 240, "frames are seen at, pixels")
EVERY = 15


def main(_: list[str]) -> None:
    run, config = Path(RUN.value), amd.get_config("runlocal")
    config.update_from_flattened_dict(restoring.network_of(run))
    state = network.final_state(config.lock(), run / "discover", "discover")
    model = network.build_model(config)

    @jax.jit
    def look(pair: jax.Array) -> tuple[jax.Array, jax.Array]:
        seen = sample(pair, SHORT_SIDE.value)
        out = model.apply(state.best_variables, seen[None], train=False)
        masks = jax.nn.softmax(out.logits, axis=-1)
        flow = model.apply(
            state.best_variables, masks[:, 0], out.motion_forward, method="flow"
        )
        return masks[0, 0], flow[0]

    print(
        "clip            EPE: AMD  none  median   loss: AMD  none  median   J, channels"
    )
    for name in SEQUENCES.value:
        rows = [measure(look, *pair) for pair in pairs_of(Path(ROOT.value), name)]
        told = np.mean(rows, axis=0)
        cells = [f"{value:6.2f}" for value in told[:3]]
        cells += [f"{value:7.3f}" for value in told[3:6]]
        channels = " ".join(f"{value:.2f}" for value in told[6:])
        print(f"{name:20s}", *cells, "", channels, flush=True)


def pairs_of(root: Path, name: str):
    """Yield frame pairs, RGB, and the annotation of the first of each."""
    frames = sorted(root.rglob(f"JPEGImages/*/{name}/*.jpg"))
    for t in range(2, len(frames) - 1, EVERY):
        pair = [cv2.imread(str(frames[i]))[..., ::-1] for i in (t, t + 1)]
        (truth,) = root.rglob(f"Annotations/*/{name}/{frames[t].stem}.png")
        yield np.stack(pair), cv2.imread(str(truth), cv2.IMREAD_GRAYSCALE) > 0


def measure(look, pair: np.ndarray, truth: np.ndarray) -> list[float]:
    """Return distances and losses of three flows, then J of every channel."""
    masks, flow = map(np.asarray, look(pair))
    h, w = inference_size(truth.shape, SHORT_SIDE.value)
    small = [cv2.resize(one, (w, h), interpolation=cv2.INTER_AREA) for one in pair]
    grey = [cv2.cvtColor(one, cv2.COLOR_RGB2GRAY) for one in small]
    dis = cv2.DISOpticalFlow_create(cv2.DISOPTICAL_FLOW_PRESET_FAST)
    true = dis.calc(*grey, None)
    median = np.broadcast_to(np.median(true, axis=(0, 1)), true.shape)
    flows = [cv2.resize(flow, (w, h)), np.zeros_like(true), median]
    here, there = (jnp.asarray(one, jnp.float32) / 255.0 for one in small)
    told = [float(np.linalg.norm(f - true, axis=-1).mean()) for f in flows]
    for f in flows:
        warped = geometry.warp(there, jnp.asarray(f, jnp.float32))
        told.append(float(losses.photometric_loss(here[None], warped[None])))
    best = cv2.resize(masks, truth.shape[::-1]).argmax(axis=-1)
    for channel in range(masks.shape[-1]):
        found = best == channel
        told.append(float((found & truth).sum() / (found | truth).sum()))
    return told


if __name__ == "__main__":
    app.run(main)
