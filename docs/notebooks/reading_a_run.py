# ---
# jupyter:
#   jupytext:
#     text_representation:
#       extension: .py
#       format_name: percent
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# # Reading a run, and trying a loss
#
# What a run leaves behind: curves, channels, flow and what the network makes of it;
# then a loss of your own on one frame of it, without changing the project. A notebook
# as a script: `python docs/notebooks/reading_a_run.py`, or `jupytext --to ipynb`.
#
# `configs/video.py` learns from motion evidence, without a motion loss; here it is
# switched to the paper's way, so that there is a reconstruction of flow to look at.

# %% tags=["parameters"]
CLIP = ""  # a video file or a folder of frames; "" renders one of the demo's
WORKDIR = "runs/notebook_reading"
RECIPE = "video"
OVERRIDES = {
    "discover.motion_weight": 1.0,
    "discover.evidence_weight": 0.0,
    "refine.motion_weight": 0.1,
    "model.channels": 4,
}
FRAME = 3
UPDATES = 200  # of the trial at the end

# %%
import json
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from PIL import Image

from imas_jax import composition, losses, protocol
from imas_jax.report import curves, drawing
from imas_jax.runs import recipes
from imas_jax.stages import explain, inputs, motion_baseline, predictor, soft_masks

if not CLIP:
    from imas_jax.demo import render

    render.render_demo(Path(WORKDIR) / "rendered", seed=0, names=("cat-sway",))
    CLIP = Path(WORKDIR) / "rendered" / "JPEGImages" / "240p" / "cat-sway"

# %% [markdown]
# ## The run
#
# `protocol.run` is what the command line calls: it finishes stage `predict`, and
# whatever that needs, in the workdir. What is finished is only opened.

# %%
config = (
    recipes.load(RECIPE)
    if isinstance(RECIPE, str)
    else RECIPE.copy_and_resolve_references()
)
config.unlock().update_from_flattened_dict(OVERRIDES)
config.data.root, config.workdir = str(CLIP), str(Path(WORKDIR) / "run")
config.stage = "predict"
run = protocol.run(config)
(clip,) = inputs.training_clips(run)
sorted(path.name for path in run.workdir.iterdir())

# %% [markdown]
# Every stage says in `result.json` what it made, from what, how long it took, and
# with which versions.

# %%
told = json.loads((run.workdir / "align" / "result.json").read_text())
told["outputs"]["channels"], told["outputs"]["scores"]

# %% [markdown]
# ## Curves
#
# `metrics.jsonl` has a record a step. A loss that falls and then stands still is what
# to expect; one that never falls wants another learning rate, one that jumps a lower
# one.

# %%
STYLE = (
    "<style>svg.curves{width:460px} svg.curves text{font:11px sans-serif}"
    "svg.curves polyline,svg.curves path{fill:none;stroke:#06c}"
    "svg.curves .grid{stroke:#ddd}</style>"
)


class Drawn:
    """HTML that a notebook shows."""

    def __init__(self, html: str):
        self.html = html

    def _repr_html_(self) -> str:
        return self.html


panels = []
for title, stage in (("stage 1", "discover"), ("stage 2", "refine")):
    log = inputs.training_log(run.folder(stage))
    points = [(record["step"], record["loss"]) for record in log if "loss" in record]
    if points:
        steps, values = zip(*points, strict=True)
        line = curves.Curve("loss", steps, values)
        panels.append(curves.svg(curves.Panel(f"{title}: loss", "", (line,))))
Drawn(STYLE + "".join(panels))

# %% [markdown]
# ## Channels
#
# Soft masks after stage 1 and stage 2. Every channel has a colour; the one that
# `align` chose is on the right, as a probability. A channel that is empty everywhere
# was not needed; an object that is spread over two channels is what `align.largest=2`
# is for.

# %%
channels = told["outputs"]["channels"]
image = clip.read(FRAME)
rows = []
for folder in (run.folder("align"), run.workdir / "predict"):
    soft = soft_masks.read(folder / "soft", clip)[FRAME].astype(np.float32)
    whole = predictor.to_frame(soft, clip.size)
    chosen = whole[..., channels].sum(axis=-1)
    rows += [image, drawing.mask_channels(whole), drawing.grey(chosen)]
Image.fromarray(drawing.contact_sheet(rows, columns=3))

# %% [markdown]
# ## Flow, reconstructed and residual
#
# What the network is trained to explain: flow (less the camera's, where the recipe
# takes it off), clamped. The reconstruction is one vector a channel and the residual,
# which is bounded by `model.residual_bound`. A residual that shows the object's
# outline means that the masks do not.

# %%
field = motion_baseline.field_of_frame(
    inputs.flow(run), clip, FRAME, run.config.flow.gaps[0]
)
explained = explain.explainer(run)(clip, field)
fastest = float(np.linalg.norm(explained.target, axis=-1).max())
shown = [
    drawing.flow_to_color(explained.target, fastest),
    drawing.flow_to_color(explained.reconstruction, fastest),
    drawing.flow_to_color(explained.residual),
]
shown = [drawing.fit_width(picture, 320) for picture in shown]
Image.fromarray(drawing.contact_sheet(shown, columns=3))

# %%
missed = np.abs(explained.target - explained.reconstruction).mean()
largest = np.abs(explained.residual).max()
{"mean error, px": float(missed), "largest residual, px": float(largest)}

# %% [markdown]
# ## Trying a loss
#
# Masks of this one frame, free of any network, that explain its flow by one vector
# each. The losses are pure functions: the project's, and one of yours.


# %%
def charbonnier(flow, reconstruction):
    """A smooth L1, in pixels."""
    return jnp.sqrt(jnp.square(flow - reconstruction) + 1e-2).mean()


TRIED = {
    "l1": losses.motion_loss,
    "robust": lambda a, b: losses.motion_loss(a, b, "robust"),
    "charbonnier": charbonnier,
}
target = jnp.asarray(explained.target)[None]


def explain_by(masks):
    """Return flow as one vector a mask (equations 1 and 2, phi the identity)."""
    found, _ = composition.piecewise_constant(target, masks, lambda x: x, lambda x: x)
    return found


def masks_for(distance, seed: int = 0):
    """Learn two masks by gradient steps; the start is noise."""

    def loss(logits):
        return distance(target, explain_by(jax.nn.softmax(logits)))

    size = (*target.shape[:3], 2)
    logits = 0.1 * jax.random.normal(jax.random.key(seed), size)
    step = jax.jit(lambda x: x - x.size * jax.grad(loss)(x))
    for _ in range(UPDATES):
        logits = step(logits)
    return jax.nn.softmax(logits)[0]


found = {name: np.asarray(masks_for(distance)) for name, distance in TRIED.items()}
found["none"] = np.full_like(found["l1"], 0.5)  # one vector for the whole frame
Image.fromarray(
    drawing.contact_sheet(
        [drawing.label(drawing.mask_channels(m), name) for name, m in found.items()],
        columns=4,
    )
)

# %% [markdown]
# One scale for all: the mean error in pixels of what their masks explain. What
# is better here, on one frame and without a network, need not be better in training:
# put it into `imas_jax/losses.py` ([CONTRIBUTING](../../CONTRIBUTING.md)) and compare
# runs over clips and seeds.

# %%
errors = {
    name: float(losses.motion_loss(target, explain_by(jnp.asarray(masks)[None])))
    for name, masks in found.items()
}
errors
