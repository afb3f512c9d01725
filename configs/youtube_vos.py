r"""IMAS from scratch on YouTube-VOS: no ImageNet, no weights (paper Sec. 6.3).

The paper says that image-based training can be replaced by training on uncurated
YouTube-VOS with the same process, and trains its AMD baseline of Fig. 11 so; it prints
no J for IMAS. Frames of `train_all_frames` train, none is annotated here.

    python -m imas_jax.main --config=configs/youtube_vos.py \
        --config.data.root=/data/youtube-vos --config.stage=discover \
        --config.flow.estimator=raft --config.flow.weights=/data/raft-things.pth

The result replaces DenseCL's weights on DAVIS16:

    python -m imas_jax.main --config=configs/davis.py \
        --config.discover.init=runs/youtube_vos --config.data.root=/data/DAVIS \
        --config.flow.estimator=raft --config.flow.weights=/data/raft-things.pth \
        --config.workdir=runs/youtube_vos_davis

Expected: no row of the paper is trained so; AMD, which is, has 57.8 J on DAVIS16 in
Table 2. Wants one accelerator with 24 GB or more, and disk for shards and flow.
"""

from ml_collections import ConfigDict

from imas_jax.configs import davis


def get_config(variant: str = "") -> ConfigDict:
    """Build the recipe; `variant` is "" or "runlocal"."""
    config = davis.get_config(variant)
    config.workdir = "runs/youtube_vos"
    config.data.layout = "youtube_vos"
    config.data.split = ""  # train_all_frames: every sequence
    config.data.source = "tfrecord"  # too large for memory
    config.data.size = (480, 854)  # ours: a few sequences have other sizes
    config.align.judged = "first"
    config.discover.weight_decay = 1e-6  # RCF, its AMD recipe
    config.evaluate.split = ""
    return config
