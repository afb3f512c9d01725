"""Fields of the tools that make what recipes may use; not a recipe of its own.

`evidence` is for configs/motion.py, `pretrain` for configs/densecl.py, `push` for any.
"""

from ml_collections import ConfigDict


def push() -> ConfigDict:
    """Where stage push brings a run (ours; pip install imas_jax[hub])."""
    return ConfigDict(
        {
            "to": "",  # hf://user/name at the Hugging Face hub
            "private": True,  # a repository that is made for it
            "report": False,  # True: the report goes too, which shows frames
        }
    )


def evidence() -> ConfigDict:
    """How stage evidence trains the motion evidence on rendered clips (ours)."""
    return ConfigDict(
        {
            "clips": 3600,  # rendered; one sample each
            "held_out": 25,  # every so many is not trained on but watched
            "workers": 0,  # rendering processes; 0 is one a core
            "widths": (8, 24, 48, 96, 128),  # channels by scale, finest first
            "context": True,  # two more layers at the coarsest, with the frame's mean
            "crop": (96, 144),  # (h, w) on the grid, whose short side is 120
            "steps": (6000, 16_000),  # of each network whose mean is taken
            "batch_size": 8,
            "learning_rate": 3e-3,  # Adam, cosine to nothing after `warm_up` steps
            "warm_up": 50,
            "weight_decay": 1e-4,
            "ema": 0.99,  # decay of the averaged parameters, which are kept
            "dice_weight": 0.5,  # beside cross-entropy, on frames with an object
            "log_every": 500,
        }
    )


def pretrain() -> ConfigDict:
    """How stage pretrain trains a backbone by DenseCL (configs/densecl.py).

    "DenseCL": the authors' ImageNet recipe of 200 epochs.
    """
    return ConfigDict(
        {
            "steps": 1_000_800,  # DenseCL: 200 epochs of 5,004
            "batch_size": 256,  # images over all devices (DenseCL)
            # Parts of a batch that batch norm sees alone, keys shuffled among them;
            # a multiple of the devices (DenseCL: its 8 GPUs)
            "groups": 8,
            "learning_rate": 0.03,  # SGD, momentum 0.9, cosine to 0 (DenseCL)
            "weight_decay": 1e-4,  # DenseCL, coupled
            "momentum": 0.999,  # of the key encoder (DenseCL)
            "temperature": 0.2,  # DenseCL
            "dense_weight": 0.5,  # lambda; the rest is the global loss's (DenseCL)
            "warm_up": 0,  # first steps with lambda 0 (its hook: 1000; no recipe)
            "queue": 65_536,  # negatives of each loss (DenseCL)
            "hidden": 2048,  # width of both heads (DenseCL)
            "features": 128,  # of an embedding (DenseCL)
            "stage": -1,  # of the backbone, under the heads; -1 deepest (DenseCL)
            # Up to so many frames away the other view may be, in clips; 0 is the same
            # frame (DenseCL)
            "neighbours": 0,
            "short_side": 256,  # stored frames, pixels (ours: crops are cut on devices)
            "crop": 224,  # side of a view, pixels (DenseCL)
            "scale": (0.2, 1.0),  # share of the frame a view shows (DenseCL)
            "jitter": 0.8,  # probability; 0.4, 0.4, 0.4, 0.1 as in MoCo v2 (DenseCL)
            "grey": 0.2,  # probability (DenseCL)
            "blurred": 0.5,  # probability (DenseCL)
            "blur": (0.1, 2.0),  # sigma, pixels of the view (DenseCL)
            "checkpoint_every": 1000,
            "log_every": 50,
            "keep_every": 0,  # steps between weights that stay beside the last; 0 none
        }
    )
