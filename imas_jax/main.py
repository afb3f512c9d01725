"""Run IMAS: `imas-jax`, or `python -m imas_jax.main`; `--help` says how.

    imas-jax clip.mp4
    python -m imas_jax.main --config=configs/davis.py --config.data.root=/data/DAVIS

A killed stage goes on when it is run again; finished work is not repeated.
"""

import sys
from collections.abc import Callable, Sequence

from absl import app, logging
from ml_collections import config_flags

from imas_jax import commandline
from imas_jax.errors import Stopped, UserError, last_words
from imas_jax.training import stopping


def entry() -> None:
    """Parse flags and run; end with one message, and a code that says why."""
    commandline.start_logging()
    stopping.raise_when_asked()
    try:
        if told := commandline.help_for(sys.argv[1:]):
            sys.stdout.write(told)
            sys.exit(0 if sys.argv[1:] else 2)
        argv = [sys.argv[0], *commandline.spelled_out(sys.argv[1:])]
        commandline.check_overrides(argv[1:])
        app.run(_main(argv), argv=argv, flags_parser=commandline.parse_flags)
    except (UserError, OSError, Stopped) as error:
        text, code = last_words(error)
        sys.stderr.write(f"{text}\n")
        sys.exit(code)


def _main(argv: Sequence[str]) -> Callable[[Sequence[str]], None]:
    """Return what runs the stage that the config names, once flags are parsed."""
    config = config_flags.DEFINE_config_file(
        "config", help_string="a recipe", sys_argv=list(argv)
    )

    def main(_: Sequence[str]) -> None:
        # Not before: jax need not be loaded to print help or refuse a typo.
        from imas_jax import protocol
        from imas_jax.runs import outcomes
        from imas_jax.training import parallel

        for line in commandline.told(sys.argv[1:], argv[1:]):
            logging.info("%s", line)
        made = protocol.run(config.value)
        if parallel.process()[0] == 0:
            typed = outcomes.command(sys.orig_argv, sys.argv)
            for line in protocol.next_steps(made, typed):
                logging.info("%s", line)

    return main


if __name__ == "__main__":
    entry()
