"""The picture of docs/method.md: what each step makes of one frame of a rendered clip.

    python benchmarks/method.py --out=docs/method.jpg

Renders the demo's clip `--clip`, learns it by configs/video.py (a minute on two idle
cores; a finished `--workdir` is used again), and lays out frame, flow, motion evidence
and masks after each step.
"""

from pathlib import Path

import numpy as np
from absl import app, flags

from imas_jax import protocol
from imas_jax.configs import video
from imas_jax.demo import render
from imas_jax.flow import motion as flow_motion
from imas_jax.report import drawing
from imas_jax.runs.run import Run
from imas_jax.stages import inputs, motion, motion_baseline, predictor, soft_masks

CLIP = flags.DEFINE_string("clip", "cat-sway", "a scene of imas_jax/demo/scenes.py")
FRAME = flags.DEFINE_integer("frame", 12, "its number, from 0")
WORKDIR = flags.DEFINE_string("workdir", "runs/method", "clip and run are kept there")
OUT = flags.DEFINE_string("out", "docs/method.jpg", "the picture")
WIDTH, COLUMNS = 320, 4


def main(_: list[str]) -> None:
    folder = Path(WORKDIR.value)
    clips = folder / "clips"
    render.render_demo(clips, 0, names=(CLIP.value,))
    config = video.get_config()
    config.data.root = str(clips / "JPEGImages" / "240p" / CLIP.value)
    config.workdir, config.stage = str(folder / "run"), "predict"
    steps = draw(protocol.run(config), FRAME.value)
    pictures = [
        drawing.label(drawing.fit_width(picture, WIDTH), f"{number}  {name}")
        for number, (name, picture) in enumerate(steps.items(), 1)
    ]
    sheet = drawing.contact_sheet(pictures, columns=COLUMNS)
    drawing.write_image(Path(OUT.value), sheet)
    print("\n".join([OUT.value, *steps]))


def draw(run: Run, t: int) -> dict[str, np.ndarray]:
    """Return the pictures of frame `t` by what they show, in the order of the steps."""
    clip = inputs.training_clips(run)[0]
    image = clip.read(t)
    gap = min(run.config.flow.gaps)
    field = motion_baseline.field_of_frame(inputs.flow(run), clip, t, gap)
    if field is None:
        raise SystemExit(f"frame {t} has no flow")
    flow = field.flow.astype(np.float32)
    alone = flow_motion.subtract_background(flow, field.homography, clip.size)
    channels = run.values("align")["channels"]

    def likely(stage: str) -> np.ndarray:
        soft = soft_masks.read(run.folder(stage) / "soft", clip)[t].astype(np.float32)
        return predictor.to_frame(soft, clip.size)[..., channels].sum(axis=-1)

    masks = run.workdir / "predict" / "masks" / clip.name
    result = soft_masks.read_png(masks / f"{clip.frames[t].name}.png")
    evidence = {
        name: list(motion.of_clip(run, clip, refined))[t]
        for name, refined in (("found", False), ("refined", True))
    }
    return {
        "frame": image,
        "flow, by direction": drawing.flow_to_color(flow),
        "flow less the camera's": drawing.flow_to_color(alone),
        "motion evidence": drawing.grey(evidence["found"]),
        "evidence, CRF": drawing.grey(evidence["refined"]),
        "stage 1": drawing.grey(likely("align")),
        "stage 2": drawing.grey(likely("predict")),
        "result (CRF)": drawing.overlay(image, result),
    }


if __name__ == "__main__":
    app.run(main)
