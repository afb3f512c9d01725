"""Run IMAS: `python -m imas_jax.main --config=configs/davis.py`.

    --config=FILE[:VARIANT]       configs/davis.py, demo.py, video.py, ...
    --config.FIELD=VALUE          any field of the config; configs/davis.py has them all
    --config.stage=STAGE          all | flow | motion | prepare | discover | align |
                                  refine | predict | evaluate | report |
                                  tune | score | ablate | each
    --config.workdir=DIR          where everything is written
    --config.restore=DIR          another run's workdir: its trained stages are used
    --config.discover.init=DIR    another run's workdir: its weights start stage 1

A killed stage goes on when it is run again; finished work is not repeated.
"""

import sys
from collections.abc import Sequence

from absl import app
from ml_collections import config_flags

from imas_jax import commandline
from imas_jax.errors import Stopped, UserError, last_words
from imas_jax.training import stopping

_CONFIG = config_flags.DEFINE_config_file("config", help_string="configuration file")


def main(argv: Sequence[str]) -> None:
    """Run the stage that the config names."""
    if argv[1:] or _CONFIG.value is None:
        raise UserError(
            f"not understood: {' '.join(argv[1:])}" if argv[1:] else "no config file",
            "--config=FILE and --config.FIELD=VALUE",
            "see --help; for a start try --config=configs/demo.py",
        )
    # Here and not above: jax need not be loaded to print help or refuse a typo.
    from imas_jax import protocol
    from imas_jax.data.found import Clips
    from imas_jax.runs import lock, restoring, run
    from imas_jax.stages import checks, fields, inputs, settle
    from imas_jax.training import compiled, together

    config = _CONFIG.value.lock()
    fields.check(config, protocol.names())
    compiled.keep()
    with together.joined(config.distributed), lock.hold(run.workdir_of(config)):
        config, clips = inputs.locate(restoring.adopt_network(config)), Clips()
        config = settle.settle(config, clips)
        checks.check(config, goal := protocol.goal(config))
        run.Run(config, (*protocol.STAGES, *protocol.TOOLS), clips).make(goal)


def entry() -> None:
    """Parse flags and run; end with one message, and a code that says why."""
    commandline.start_logging()
    stopping.raise_when_asked()
    try:
        commandline.check_overrides(sys.argv[1:])
        app.run(main, flags_parser=commandline.parse_flags)
    except (UserError, OSError, Stopped) as error:
        text, code = last_words(error)
        sys.stderr.write(f"{text}\n")
        sys.exit(code)


if __name__ == "__main__":
    entry()
