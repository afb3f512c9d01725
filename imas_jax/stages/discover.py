"""Stage 1, object discovery (paper Sec. 3.2): flow supervises an image network."""

from absl import logging

from imas_jax.conventions import Tree
from imas_jax.runs.run import Output, Run
from imas_jax.stages import fit, inputs, motion, network, supervision
from imas_jax.training import checkpoints
from imas_jax.training.watching import NOBODY, Watcher


def work(run: Run, watcher: Watcher = NOBODY) -> Output:
    """Train on motion; continue where a killed run stopped."""
    if motion.alone(run.config):
        logging.info("nothing is learned: masks are the motion evidence's")
        told = {"steps": 0, "last": {}, "timing": {}}
        identity = run.result("motion")["identity"]
        return Output(identity, told | {supervision.NOTED: []})
    wanted = None
    if run.config.discover.evidence_weight > 0:
        wanted = fit.Wanted((motion.GUIDED,), motion.guides(run))
    state = fit.fit(run, "discover", starting_variables(run), watcher, wanted)
    log = inputs.training_log(run.workdir / "discover")
    return Output(
        identity=checkpoints.digest(checkpoints.as_tree(state)),
        values={
            "steps": int(state.step),
            "last": log[-1] if log else {},
            "timing": inputs.training_timing(run.workdir / "discover"),
            supervision.NOTED: supervision.of_start(run.config, "discover"),
        },
    )


def starting_variables(run: Run) -> Tree:
    """Choose where training starts.

    The order is important:

    1. the stage's own newest checkpoint, which the loop prefers to all that follow;
    2. the weights that another run ended with, `discover.init`;
    3. backbone weights from a file, `model.weights`, and the rest at random;
    4. all at random.

    A run that is restored (`restore`) does not come here: its stage 1 is finished.

    Raises:
        UserError: If the run to start from is not finished, or another network's.
    """
    found = network.weights_of_run(run.config, "discover")
    if found is None:
        return network.initial_variables(network.build_model(run.config), run.config)
    logging.info("starting from the weights of %s", run.config.discover.init)
    return found
