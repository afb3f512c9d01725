"""One clip of your own, no annotations, no weights: a folder of frames or a video file.

    python -m imas_jax.main --config=configs/video.py --config.data.root=clip.mp4

Masks are written to runs/video/predict/masks, the report to runs/video/report.
Trains on that clip alone, two to three minutes on two CPU cores. Differences from the
paper's recipe are ours, each kept because it measured better; README, "Own video".
"""

from ml_collections import ConfigDict

from configs import davis


def get_config() -> ConfigDict:
    """Build the recipe for one clip."""
    config = davis.get_config()
    config.workdir = "runs/video"
    config.data.layout = "auto"
    small_network(config)
    config.align.judged = "all"
    config.evaluate.split = ""
    return config


def small_network(config: ConfigDict) -> None:
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
    # Measured against the other presets: benchmarks/results/video.md.
    config.target.crf = config.predict.crf = "weak_unary"
    config.target.resolution = "frame"
    config.predict.short_side = 240
