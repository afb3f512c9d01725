r"""Rows of the paper's Tables 3, 4 and 5 on DAVIS16: configs/davis.py and changes.

One row, one run:

    python -m imas_jax.main --config=configs/ablation.py:pathway-affine \
        --config.data.root=/data/DAVIS --config.model.weights=/data/densecl_r50.pth \
        --config.flow.estimator=raft --config.flow.weights=raft_things

Rows, their changes and the paper's J are in imas_jax/evaluation/ablations.py: neither,
residual, feature-merging, stage-1, stage-2, stage-2-semantic, stage-2-semantic-crf;
pathway-none, pathway-none-robust, pathway-scaling, pathway-affine, pathway-residual;
post-stage-1, post-stage-2, post-stage-1-crf, post-stage-2-crf. Whole methods, on the
same clips, flow, network and schedule: amd, gwm, imas-stage-1, imas-lr, rcf-1, rcf-2.1,
rcf-2.2 (alone it wants --config.discover.init=RUN, a run of rcf-2.1).

Several rows over seeds, and one table of mean and spread beside the paper's numbers, in
runs/ablation/ablate/: `all` (three tables), `table-3`, `table-4`, `table-5` or
`methods` in place of a row.

    python -m imas_jax.main --config=configs/ablation.py:all \
        --config.ablate.seeds=0,1,2 ...

Rows share flow and every stage on whose config they agree, so all 16 rows are 7
trainings of stage 1 and 2 of stage 2 a seed. It can be killed and run again.
`--config.stage=ablate` does the same with a single row, `--config.ablate.rows` names
rows one by one. `:all,runlocal` is the miniature; `:all,alone` the one in which every
sequence trains a small network of its own, as configs/video.py does.
"""

from ml_collections import ConfigDict

from imas_jax.configs import davis
from imas_jax.evaluation import ablations

SETS = ("all", "table-3", "table-4", "table-5", "methods")


def get_config(wanted: str) -> ConfigDict:
    """Build the recipe of a row, or of the tool that trains several.

    Args:
        wanted: Name of the row or one of `SETS`, or "NAME,runlocal" or "NAME,alone" for
            its miniatures.

    Raises:
        ValueError: With all names, if there is no such row.
    """
    name, _, variant = wanted.partition(",")
    rows = {ablation.name: ablation for ablation in ablations.ROWS}
    if name not in (*rows, *SETS):
        known = ", ".join([*SETS, *rows])
        raise ValueError(f"unknown row {name!r}; known: {known}")
    if variant not in ("", "runlocal", "alone"):
        raise ValueError(f"unknown variant {variant!r}; known: runlocal, alone")
    config = davis.get_config("runlocal" if variant == "alone" else variant)
    if variant == "alone":
        learn_alone(config)
    if name in SETS:
        config.stage, config.workdir = "ablate", "runs/ablation"
        config.ablate.rows = "" if name == "all" else name
        return config
    config.workdir = f"runs/ablation/{name}"
    config.ablate.rows = name
    row = ablations.with_crf(rows[name], config.ablate.crf)
    config.update_from_flattened_dict({**ablations.RECIPE, **row.overrides})
    return config


def learn_alone(config: ConfigDict) -> None:
    """Let every sequence train a network of its own, with configs/video.py's numbers.

    Args:
        config: The miniature of configs/davis.py, changed in place.
    """
    config.ablate.alone = True
    config.model.channels, config.model.still_background = 4, False
    config.discover.steps, config.refine.steps = 200, 80
