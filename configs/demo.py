"""The whole protocol with no download: clips rendered from bundled photographs.

    make demo

Four and more clips with exact masks, minutes on two CPU cores. From the clip reader on
it is the code that runs on DAVIS.
"""

from ml_collections import ConfigDict

from imas_jax.configs import _small, davis


def get_config() -> ConfigDict:
    """Build the demo."""
    config = davis.get_config()
    config.workdir = "runs/demo"
    config.data.layout = "demo"
    config.data.resolution = "240p"
    _small.network(config)
    # Five clips share one network: channels keep their roles, training is longer.
    config.model.channels, config.model.still_background = 2, True
    config.discover.steps, config.refine.steps = 600, 160
    config.align.judged = "all"
    config.evaluate.split = ""
    return config
