r"""AMD, the other method of the paper (Sec. 6.2, Fig. 11): learned without any flow.

Liu et al., *The Emergence of Objectness*, NeurIPS 2021: an appearance and a motion
network learn together to warp one frame to the other (imas_jax/models/amd.py).

    python -m imas_jax.main --config=configs/amd.py:demo
    python -m imas_jax.main --config=configs/amd.py:runlocal --config.data.root=DAVIS
    python -m imas_jax.main --config=configs/amd.py --config.stage=discover \
        --config.data.root=/data/youtube-vos --config.data.layout=youtube_vos

The tuner picks C and the channel as for IMAS: --config.align.sweep of runs with other
model.channels (configs/align.py). Flow is computed only for the motion baseline in the
tables; neither training nor the choice of the channel reads it.

Expected: the paper has 57.8 J on DAVIS16 (Table 2) after training on YouTube-VOS with a
ResNet-50 and PWC-Net's features. The motion network here is smaller.
"""

from ml_collections import ConfigDict

from imas_jax.configs import davis, demo


def get_config(variant: str = "") -> ConfigDict:
    """Build the recipe; `variant` is "", "runlocal" or "demo"."""
    config = demo.get_config() if variant == "demo" else davis.get_config(variant)
    config.workdir = "runs/amd"
    config.model.update(
        {
            "name": "amd",
            "channels": 5,  # AMD
            "pathway": "none",  # one motion a channel and nothing beside it
            "motion_width": 16,  # ours: of the motion network
            "residual_bound": 20.0,  # ours: the fastest motion, pixels of the crop
            "still_background": False,
        }
    )
    config.flow.background = "none"
    config.align.score = "semantic"  # needs no flow
    config.refine.steps = 0  # AMD has one stage
    return config
