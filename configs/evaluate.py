r"""Score masks of any method: a folder, or several compared with the first.

    python -m imas_jax.main --config=configs/evaluate.py \
        --config.evaluate.masks=DIR --config.data.root=/data/DAVIS

`DIR` holds `<sequence>/<frame>.png`, or the authors' flat
`pred_seg_<sequence>_<frame>_<step>.png`: label numbers, 0 and 255, or soft in 8 or 16
bits (told by looking; `--config.evaluate.encoding` says it). With
`--config.evaluate.masks=A,B,C` B and C are compared with A, sequence by sequence, with
a bootstrap interval. SegTrackv2 and FBMS59 want `--config.data.layout=segtrackv2` and
`--config.data.layout=fbms59`.

Tables by three named protocols are printed and stored in runs/evaluate/score/. The
first row is the motion baseline on DIS flow, which is computed once and kept: minutes
for DAVIS on two CPU cores. `--config.evaluate.baseline=False` leaves it out.
`--config.evaluate.published=True` prints the paper's Table 2 whole below them.
"""

from ml_collections import ConfigDict

from imas_jax.configs import davis


def get_config() -> ConfigDict:
    """Build the config that scores folders."""
    config = davis.get_config()
    config.stage = "evaluate"
    config.workdir = "runs/evaluate"
    config.data.layout = "auto"
    config.data.split = "val"
    config.evaluate.split = config.data.get_ref("split")
    return config
