"""The motion evidence: what makes the weights in imas_jax/flow/evidence.npz.

    python -m imas_jax.main --config=configs/motion.py

Renders clips, estimates their flow, and trains the small network that says what moves
on its own. Nothing is downloaded and nobody annotated anything: the masks are known
because the clips are rendered. Weights are written to runs/motion/evidence/; about one
hour on two CPU cores. What they are worth: benchmarks/results/evidence.md.
"""

from ml_collections import ConfigDict

from configs import davis


def get_config() -> ConfigDict:
    """Build the recipe; of the rest of the config only `flow` and `seed` count."""
    config = davis.get_config()
    config.stage = "evidence"
    config.workdir = "runs/motion"
    config.evidence = ConfigDict(
        {
            "clips": 750,  # rendered; one sample each
            "held_out": 25,  # every so many is not trained on but watched
            "workers": 0,  # rendering processes; 0 is one a core
            "widths": (8, 24, 48, 96, 128),  # channels by scale, finest first
            "crop": (96, 144),  # (h, w) on the grid of 120 rows
            "steps": 1000,
            "batch_size": 8,
            "learning_rate": 3e-3,  # Adam, cosine to nothing after `warm_up` steps
            "warm_up": 50,
            "weight_decay": 1e-4,
            "ema": 0.99,  # decay of the averaged parameters, which are kept
            "dice_weight": 0.5,  # beside cross-entropy, on frames with an object
            "log_every": 100,
        }
    )
    return config
