r"""Guess What Moves, a method of the paper's Table 2: masks of affine motion.

Choudhury, Karazija et al., BMVC 2022. An image network's masks are right where the flow
under each of them is an affine motion, fitted by least squares; nothing of the motion
is learned. IMAS's paper sets itself against that (Sec. 3.2, Table 4 "affine").

    python -m imas_jax.main --config=configs/gwm.py --config.data.root=/data/DAVIS \
        --config.model.weights=densecl_resnet50 --config.flow.estimator=raft \
        --config.flow.weights=raft_things
    python -m imas_jax.main --config=configs/gwm.py:runlocal --config.data.root=DAVIS
    python -m imas_jax.main --config=configs/gwm.py:demo

Expected: 71.2 J on DAVIS16 (Table 2; 73.4 with a CRF and more, from another network).
It is the matching that is theirs; the network stays IMAS's ResNet-50 with its head.

"GWM": the authors' code, github.com/karazijal/guess-what-moves, file beside it. What
is not theirs here: Adam for AdamW (so no weight decay: theirs is decoupled, 0.01), no
warm-up, least squares weighted by the masks and not by their squares, and the affine
motion that IMAS's paper describes; their code has gone on to a quadratic one, to four
masks that DINO's features merge to two, and picks the better of the two by the
annotation. Four masks with unions: --config.model.channels=4 --config.align.largest=3.
"""

from ml_collections import ConfigDict

from imas_jax.configs import davis, demo
from imas_jax.evaluation import ablations


def get_config(variant: str = "") -> ConfigDict:
    """Build the recipe; `variant` is "", "runlocal" or "demo"."""
    config = demo.get_config() if variant == "demo" else davis.get_config(variant)
    config.workdir = "runs/gwm"
    # Two masks (paper Sec. 3.2, of GWM), an affine motion each, with phi_1 and phi_2
    # the identity, so that the fit is least squares alone; squared error
    # (GWM: config.py, CRITERION = L2); one stage.
    config.update_from_flattened_dict(dict(ablations.GWM))
    if variant:
        return config
    config.model.flow_clamp = 20.0  # GWM: main.py, flow clipped to [-20, 20]
    config.flow.gaps = (1, 2)  # GWM: config.py, pairs of DAVIS and STv2; FBMS59 3, 6
    # GWM: config.py, RESOLUTION; whole frames, no flips, no colours
    config.augment.update({"short_side": 128, "scale": (1.0, 1.0), "crop": (128, 224)})
    config.augment.update({"flip": 0.0, "photometric": False})
    config.predict.short_side = 128
    config.discover.update(
        {
            "steps": 20_000,  # GWM: config.py, TOTAL_ITER
            "batch_size": 8,  # GWM: maskformer_R50_bs16_160k_dino.yaml
            "learning_rate": 1.5e-4,  # GWM: the same
            "min_learning_rate": 0.0,
            "steps_per_decay": 1,
            "weight_decay": 0.0,
            "motion_weight": 0.03,  # GWM: config.py, LOSS_MULT.REC
        }
    )
    return config
