"""One clip of your own, no annotations, no weights: a folder of frames or a video file.

    python -m imas_jax.main --config=configs/video.py --config.data.root=clip.mp4

Masks are written to runs/video/predict/masks, the report to runs/video/report.
Trains on that clip alone, a minute on two CPU cores. What moves on its own is told by a
network trained on rendered clips (configs/motion.py), refined by the image; stage 1 and
stage 2 learn what it looks like, frame by frame. There is no motion loss. Differences
from the paper's recipe are ours and were chosen by measurement: docs/experiments.md,
benchmarks/results/video.md.

    python -m imas_jax.main --config=configs/video.py:quick --config.data.root=clip.mp4

learns nothing on the clip: masks are the motion evidence, refined, steadied along the
flow and refined again. A third of the time; benchmarks/results/video_quick.md.

With `--config.model.weights=FILE` a given network is taken in the place of a small one
from scratch: which, its file tells. Where there is no accelerator its backbone stays as
it is, what it sees in the clip is computed once, and a light head learns
(docs/features.md).

What is left open here is chosen by what the clip is, with the reason in the log
(imas_jax/stages/settle.py); a value on the command line stands.
"""

from ml_collections import ConfigDict

from imas_jax.configs import _small, davis

CRF = "authors_post:iterations=10"  # RCF's; 50 updates gain 0.2 points of J


def get_config(variant: str = "") -> ConfigDict:
    """Build the recipe for one clip; `variant` is "" or "quick"."""
    if variant not in ("", "quick"):
        raise ValueError(f"unknown variant {variant!r}; known: '' and 'quick'")
    config = davis.get_config()
    config.workdir = "runs/video"
    config.data.layout = "auto"
    _small.network(config)
    config.data.update({"size": (-1, -1), "cuts": "find", "frames": -1})
    config.flow.update({"gaps": (-1,), "size": -1})
    config.motion.update({"evidence": "network", "also": "dis", "crf": CRF})
    config.motion.border_contact = 0.25
    config.discover.update({"motion_weight": 0.0, "evidence_weight": 1.0, "ema": 0.9})
    config.refine.update({"motion_weight": 0.0, "positive_weight": 1.0, "ema": 0.9})
    config.model.channels = 2  # the object and the rest
    config.augment.update({"scale": (1.0, 1.0), "photometric": False})
    config.target.crf = config.predict.crf = CRF
    config.predict.update({"evidence": 0.45, "steady": -1.0, "crf_agreement": 0.5})
    config.predict.border_contact = 0.25
    config.model.update({"backbone": "auto", "width": -1, "output_stride": -1})
    config.model.trained, config.predict.short_side = "auto", -1
    config.model.update({"head_width": -1, "head_dilation": -1})
    config.discover.update({"steps": -1, "learning_rate": -1.0})
    config.refine.update({"steps": -1, "learning_rate": -1.0})
    config.augment.fit_crop = True
    config.align.judged = "all"
    config.evaluate.split = ""
    if variant == "quick":
        config.discover.steps = config.refine.steps = 0
        config.predict.evidence = 1.0
        config.data.frames = 0  # nothing is trained on some and shown on all
    return config
