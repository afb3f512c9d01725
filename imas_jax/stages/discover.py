"""Stage 1, object discovery (paper Sec. 3.2): flow supervises an image network."""

from absl import logging

from imas_jax.conventions import Tree
from imas_jax.errors import UserError
from imas_jax.runs.run import Output, Run
from imas_jax.stages import fit, inputs, network
from imas_jax.training import checkpoints
from imas_jax.training.watching import NOBODY, Watcher


def work(run: Run, watcher: Watcher = NOBODY) -> Output:
    """Train on motion; continue where a killed run stopped."""
    state = fit.fit(run, "discover", starting_variables(run), watcher)
    log = inputs.training_log(run.workdir / "discover")
    return Output(
        identity=checkpoints.digest(checkpoints.as_tree(state)),
        values={
            "steps": int(state.step),
            "last": log[-1] if log else {},
            "timing": inputs.training_timing(run.workdir / "discover"),
        },
    )


def starting_variables(run: Run) -> Tree:
    """Choose where training starts: another run, given weights, or random.

    The stage's own checkpoint, if there is one, is preferred to all three by the loop.

    Raises:
        UserError: If the run to start from holds no checkpoint.
    """
    if run.restored is None:
        return network.initial_variables(network.build_model(run.config), run.config)
    for stage in ("refine", "discover"):
        folder = run.restored / stage
        if (folder / "checkpoints").is_dir():
            logging.info("starting from stage %s of %s", stage, run.restored)
            return network.final_state(run.config, folder, stage).best_variables
    raise UserError(
        f"restore = {str(run.restored)!r} holds no checkpoint",
        "the workdir of a run with discover/checkpoints",
        "name the folder that was that run's --config.workdir",
    )
