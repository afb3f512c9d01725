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
# # Your own video, from frames to an alpha clip
#
# A notebook as a script: run it with `python docs/notebooks/own_video.py`, open it in
# an editor that knows `# %%` cells, or turn it into a notebook with `jupytext --to
# ipynb own_video.py`. It learns one clip and writes what moves in it as a film with
# alpha, a minute or so on two CPU cores.

# %% tags=["parameters"]
CLIP = ""  # a video file or a folder of frames; "" renders one of the demo's
WORKDIR = "runs/notebook"  # what is finished there is not done again
OUT = "runs/notebook/out"
RECIPE = "video"
OVERRIDES = {}  # fields of configs/davis.py by dotted name

# %%
from pathlib import Path

import av
import numpy as np
from PIL import Image

import imas_jax

# %% [markdown]
# ## The frames
#
# The rendered clip has exact masks, so that the result can be scored below; yours
# need none.

# %%
annotations = None
if not CLIP:
    from imas_jax.demo import render

    root = Path(WORKDIR) / "rendered"
    render.render_demo(root, seed=0, names=("cat-sway",))
    CLIP = root / "JPEGImages" / "240p" / "cat-sway"
    annotations = root / "Annotations" / "240p" / "cat-sway"

# %% [markdown]
# ## Masks
#
# `segment` trains a network on this clip alone. It says what it does to the function
# given as `progress`, and chooses what the recipe leaves open: `logging` tells with
# reasons. Interrupt it and run the cell again: it goes on.

# %%
heard = {}


def listen(at: imas_jax.Progress) -> None:
    """Keep the last word of every work."""
    heard[at.what] = f"{at.done}/{at.total} {at.unit} {at.said}"


result = imas_jax.segment(
    CLIP,
    config=RECIPE,
    overrides=OVERRIDES,
    workdir=Path(WORKDIR) / "run",
    progress=listen,
)
heard

# %% [markdown]
# `result.masks` reads a mask when it is asked for: bool `(h, w)` at the clip's own
# size. How much of each frame is object, in percent: frames that fall out of line are
# worth a look.

# %%
shares = [100 * float(mask.mean()) for mask in result.masks]
[round(share, 1) for share in shares]

# %% [markdown]
# Where there are annotations, J and F ([numbers](../numbers.md)):

# %%
score = None
if annotations is not None:
    score = imas_jax.score(result, annotations)
score

# %% [markdown]
# ## Files
#
# All formats: [formats](../formats.md). A film with alpha is laid over anything by a
# browser or an editing program.

# %%
saved = result.save(OUT, ["png", "webm_alpha", "gif"])
saved

# %% [markdown]
# The film read back, over green. `libvpx-vp9` is named because FFmpeg's own decoder
# ignores alpha.

# %%
film = next(path for path in Path(OUT).rglob("*.webm"))
with av.open(str(film)) as container:
    stream = container.streams.video[0]
    decoder = av.CodecContext.create("libvpx-vp9", "r")
    decoder.extradata = stream.codec_context.extradata
    cut_outs = [
        frame.to_ndarray(format="rgba")
        for packet in container.demux(stream)
        for frame in decoder.decode(packet if packet.size else None)
    ]
green = np.array([0, 177, 64], np.float32)
cut_out = cut_outs[len(cut_outs) // 2].astype(np.float32)
alpha = cut_out[..., 3:] / 255
over_green = (alpha * cut_out[..., :3] + (1 - alpha) * green).astype(np.uint8)
Image.fromarray(over_green)

# %% [markdown]
# ## Other frames
#
# The network stays. On frames as they come it finds the same object by appearance
# alone, without flow and motion evidence. Here: two of the cut-outs, mirrored, before a
# black that it has never seen.

# %%
network = imas_jax.load(result.workdir)
height, width = result.masks[0].shape


def frames():
    """Yield pictures, as a camera would: here the cut-outs, mirrored."""
    for picture in cut_outs[:2]:
        yield np.ascontiguousarray(picture[:height, :width, :3][:, ::-1])


mirrored = list(network.segment(frames()))
[round(100 * float(mask.mean()), 1) for mask in mirrored]

# %% [markdown]
# ## The report
#
# One HTML file, which needs nothing else: overlays, channels, curves, warnings.

# %%
page = result.report()
page
