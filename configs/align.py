r"""Rank masks without annotations: the paper's tuner (Sec. 3.4) for any method.

    python -m imas_jax.main --config=configs/align.py \
        --config.align.frames=DIR --config.align.masks=DIR_A,DIR_B,...

Each of the mask folders is one candidate: a channel, a checkpoint, a hyperparameter
value, another method. Frames lie in `DIR/<sequence>/<frame>.jpg` (or are a DAVIS root,
one sequence's folder, or a video), masks in `DIR_A/<sequence>/<frame>.png`: labels,
0 and 255, or soft in 8 or 16 bits. Only sequences that every folder has are judged.
The ranked table is printed and stored in runs/align/tune/.

With `--config.align.sweep=RUN_A,RUN_B,...` in place of masks, all channels of all
checkpoints of these runs are ranked. Seconds for first frames on two CPU cores; nothing
is trained.

Features are superpixels, or a trained network's with `--config.align.weights=FILE`.
First frames are judged, as in the paper; `--config.align.judged=all` takes longer and
ranks better: on published masks at 480p the Spearman correlation of score and J is 0.76
for first frames and 0.91 for every 20th (benchmarks/results/alignment.md). Superpixels
want frames of 480p rather than smaller ones.
"""

from ml_collections import ConfigDict

from imas_jax.configs import davis


def get_config() -> ConfigDict:
    """Build the tuner's config."""
    config = davis.get_config()
    config.stage = "tune"
    config.workdir = "runs/align"
    config.align.frames = ""
    config.data.root = config.align.get_ref("frames")
    config.data.layout = "auto"
    config.data.split = ""  # every sequence
    config.data.partial = True  # masks may be of a part of a data set
    # Motion knows which channel moves, but ranks coarse masks above good ones
    # (benchmarks/results/alignment.md); motion and both compute DIS flow.
    config.align.score = "semantic"
    return config
