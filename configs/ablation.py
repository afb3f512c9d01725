r"""One row of the paper's Tables 3, 4 or 5 on DAVIS16: configs/davis.py and its change.

    python -m imas_jax.main --config=configs/ablation.py:pathway-affine \
        --config.data.root=/data/DAVIS --config.flow.weights=/data/raft-things.pth \
        --config.model.weights=/data/densecl_r50.pth

Rows, their changes and the paper's J are in imas_jax/evaluation/ablations.py: neither,
residual, feature-merging, stage-1, stage-2, stage-2-semantic, stage-2-semantic-crf;
pathway-none, pathway-none-robust, pathway-scaling, pathway-affine, pathway-residual;
post-stage-1, post-stage-2, post-stage-1-crf, post-stage-2-crf.

Each is as long as a DAVIS run, but for the last column of Tables 3 and 5, which only
predicts anew: `--config.restore` of the row above.
"""

from ml_collections import ConfigDict

from configs import davis
from imas_jax.evaluation import ablations


def get_config(row: str) -> ConfigDict:
    """Build the recipe of a row.

    Args:
        row: Name of the row, or "NAME,runlocal" for a miniature of it.

    Raises:
        ValueError: With all names, if there is no such row.
    """
    name, _, variant = row.partition(",")
    rows = {ablation.name: ablation for ablation in ablations.ABLATIONS}
    if name not in rows:
        raise ValueError(f"unknown row {name!r}; known: {', '.join(rows)}")
    config = davis.get_config(variant)
    config.workdir = f"runs/ablation/{name}"
    config.update_from_flattened_dict(dict(rows[name].overrides))
    return config
