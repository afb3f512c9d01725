r"""RCF, the paper's successor: relaxed common fate, then grouping by what is seen.

Lian, Wu and Yu, *Bootstrapping Objectness from Videos by Relaxed Common Fate and Visual
Grouping*, CVPR 2023. Three trainings; the third is a run of its own that starts from
the first one's network:

    python -m imas_jax.main --config=configs/rcf.py --config.data.root=/data/DAVIS \
        --config.model.weights=densecl_resnet50 --config.flow.estimator=raft \
        --config.flow.weights=raft_things
    python -m imas_jax.main --config=configs/rcf.py:semantic --config.discover.init=\
        runs/rcf --config.data.root=... (the same)

1 is IMAS's stage 1 with an entropy term; the channel is chosen by normalised cuts of
DINO's features. 2.1 learns from the CRF of its own averaged network while it trains.
2.2 (`semantic`) learns from masks whose normalised cut was improved too.

Variants: `segtrackv2`, `fbms59`, `runlocal`, `demo`, each with `,semantic` behind it
for its second run. The last two have no weights: cuts are of superpixels' features.

Expected (RCF's read-me, frame mean, without and with CRF post-processing): DAVIS16
80.9, 83.0; STv2 76.7, 79.6; FBMS59 69.9, 72.4; after stage 1 alone 78.9, 72.8, 66.8.

"RCF": github.com/TonyLianLong/RCF-UnsupVideoSeg, file beside it. What differs: the
averaged network is asked as in prediction (theirs stays in training mode); its CRF sees
frames at mask resolution (theirs at the crop's) and 2.2's targets are not thresholded
again after the resize; 2.2 starts from the averaged network that made its masks (theirs
from the last one; on STv2 from stage 1's, with a new head at stride 4).
"""

from ml_collections import ConfigDict

from imas_jax.configs import davis, demo, fbms59, segtrackv2
from imas_jax.evaluation import ablations

BASES = {"": davis, "demo": demo, "segtrackv2": segtrackv2, "fbms59": fbms59}
EPOCHS = {"": 216, "segtrackv2": 61, "fbms59": 867}  # steps, batch 16 (RCF: read-me)


def get_config(variant: str = "") -> ConfigDict:
    """Build a recipe; `variant` is a data set, "semantic", or both with a comma."""
    names = variant.split(",") if variant else []
    semantic = "semantic" in names
    small = {"runlocal", "demo"} & set(names)
    base = "".join(name for name in names if name not in ("semantic", "runlocal"))
    if base not in BASES:
        known = ", ".join([*filter(None, BASES), "runlocal", "semantic"])
        raise ValueError(f"unknown variant {variant!r}; known: {known}")
    config = BASES[base].get_config(*(["runlocal"] if "runlocal" in names else []))
    stages = ablations.RCF_22 if semantic else ablations.RCF_21
    config.update_from_flattened_dict(dict(stages))
    config.workdir = "runs/rcf" + f"-{base}" * bool(base) + "-semantic" * semantic
    # RCF: maa.py and semantic_constraints.py: keys of DINO's ViT-S/8, tau = 0.2
    config.align.update({"backbone": "vit_s8", "features": "weights"})
    config.align.weights, config.align.threshold = "dino_vits8", 0.2
    if small:
        config.align.features, config.align.weights = "superpixels", ""
        config.align.threshold = 0.0
        # Ours: 160 steps are too few for a teacher of 0.999 to learn anything.
        config.refine.ema = 0.0 if semantic else 0.9
        return config
    discover, refine = config.discover, config.refine
    # RCF: rcf_stage2.1.yaml and 2.2.yaml, 20 epochs; read-me: stage 1 ends at 43,200
    epoch = EPOCHS[base]
    refine.steps = 20 * epoch
    discover.steps_per_decay = refine.steps_per_decay = epoch
    if not base and not semantic:
        discover.steps = 43_200
    if base == "segtrackv2":
        # RCF: rcf_stv2/rcf_stage1.yaml: free_residual_with_affine; w_compactness of
        # channel 0; masks 48x48, which is segtrackv2.py's feature_merging = False
        config.model.pathway, config.loss.compactness = "residual_affine", 1.0
    if base == "fbms59":
        # RCF: rcf_fbms59/rcf_stage1.yaml: num_classes, free_residual_with_affine
        config.model.channels, config.model.pathway = 3, "residual_affine"
        # RCF: rcf_stage2.1.yaml: 4 epochs of a decay over 20, as fbms59.py's stage 1
        refine.steps, refine.min_learning_rate = 4 * epoch, 8.4e-6
        # RCF: semantic_constraints.py, umi_th: 10,000 of 480x854 pixels
        config.target.disagreement = 0.0244
    return config
