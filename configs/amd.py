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
ResNet-50 and PWC-Net's features. The motion network here is smaller. "AMD": the
authors' code, github.com/rt219/The-Emergence-of-Objectness, file beside it.
"""

from ml_collections import ConfigDict

from imas_jax.configs import davis, demo
from imas_jax.evaluation import ablations


def get_config(variant: str = "") -> ConfigDict:
    """Build the recipe; `variant` is "", "runlocal" or "demo"."""
    config = demo.get_config() if variant == "demo" else davis.get_config(variant)
    config.workdir = "runs/amd"
    # C = 5 (AMD: config_train.py, mask_layer); one motion a channel and nothing beside
    # it; frames compared at 4 sizes (AMD: fcn_head.py, w_scales). Ours: 16 channels of
    # the motion network, whose fastest motion is 20 pixels of the crop. The judge needs
    # no flow; AMD has one stage.
    config.update_from_flattened_dict(dict(ablations.AMD))
    if not variant:
        config.discover.weight_decay = 1e-6  # AMD: config_train.py
        # AMD: config_train.py, train_pipeline; no flips, no colours
        config.augment.update({"flip": 0.0, "photometric": False})
    return config
