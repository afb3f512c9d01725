"""What a few minutes on two CPU cores want; not a recipe of its own.

`runlocal` is `--config=configs/davis.py:runlocal`; `network` is what the recipes that
train from scratch share (demo.py, video.py). All values are ours.
"""

from ml_collections import ConfigDict


def runlocal(config: ConfigDict) -> None:
    """Make the protocol fit two CPU cores and a few minutes.

    Trains, without labels as ever, on the scored sequences only: from random weights a
    short run cannot learn what fifty sequences look like.
    """
    network(config)
    config.data.split = "val"
    # Clips that share one small network keep their channels' roles.
    config.model.channels, config.model.still_background = 2, True
    config.align.judged = "all"
    config.discover.steps, config.refine.steps = 600, 160


def network(config: ConfigDict) -> None:
    """Set what a few minutes of training from scratch at 240p want."""
    config.model.update(
        {
            "backbone": "unet",
            "width": 16,
            "head_width": 32,
            "head_dilation": 2,
            "motion_width": 0,
            "residual_bound": 1.25,
        }
    )
    config.flow.background = "homography"
    config.augment.update({"short_side": 240, "scale": (0.9, 1.1), "crop": (192, 320)})
    config.discover.update(
        {
            "steps": 200,
            "batch_size": 4,
            "learning_rate": 2e-3,
            "min_learning_rate": 1e-5,
            "steps_per_decay": 1,
            "weight_decay": 1e-6,
            "checkpoint_every": 100,
        }
    )
    config.refine.update(
        {
            "steps": 80,
            "batch_size": 4,
            "learning_rate": 5e-4,
            "min_learning_rate": 1e-5,
            "steps_per_decay": 1,
            "weight_decay": 1e-6,
        }
    )
    config.watch.images_every = 100
    # Measured against the other presets: benchmarks/results/video.md.
    config.target.crf = config.predict.crf = config.ablate.crf = "weak_unary"
    config.target.resolution = "frame"
    config.predict.short_side = 240
