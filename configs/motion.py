r"""The motion evidence: what makes the weights in imas_jax/flow.

    python -m imas_jax.main --config=configs/motion.py                  # evidence.npz
    python -m imas_jax.main --config=configs/motion.py \
        --config.flow.estimator=raft --config.flow.weights=raft-small.pth \
        --config.flow.iterations=12 --config.flow.size=0 \
        --config.evidence.clips=400 "--config.evidence.steps=(1000,)" \
        --config.evidence.context=False                            # evidence_raft.npz

Renders clips, estimates their flow, and trains the small networks that say what moves
on its own. Nothing is downloaded and nobody annotated anything: the masks are known
because the clips are rendered. Weights are written to runs/motion/evidence/; what they
are worth, and how long they take: benchmarks/results/evidence.md.
"""

from ml_collections import ConfigDict

from imas_jax.configs import davis


def get_config() -> ConfigDict:
    """Build the recipe: only `evidence`, `flow` and `seed` count."""
    config = davis.get_config()
    config.flow.size = 480  # as configs/video.py has it
    config.stage = "evidence"
    config.workdir = "runs/motion"
    return config
