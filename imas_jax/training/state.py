"""What training carries from step to step, and how it starts."""

from collections.abc import Collection
from typing import Any

import jax
import jax.numpy as jnp
import optax
from flax import struct

from imas_jax.conventions import HostOrDevice, Tree

# Streams of randomness; a key is fold_in(fold_in(root, stream), step).
AUGMENT, DROPOUT = 1, 2


@struct.dataclass
class TrainState:
    """Everything a resumed run needs; immutable.

    Attributes:
        step: Updates done so far.
        params: Network parameters.
        batch_stats: Running statistics of batch normalisation.
        opt_state: Optimiser state.
        ema: Averaged `{"params", "batch_stats"}`, or None when averaging is off.
        seed: Root of every random key.
        teacher: `ema` before the last update, which makes the targets of the next one
            (training/online.py), or None where targets are not made while training.
        frozen: Variables that are not trained and that no step reads, for what was
            computed with them is what it is fed; None where all are trained.
    """

    step: Any  # an integer; a template has its shape and type, as all leaves here
    params: Tree
    batch_stats: Tree
    opt_state: Any
    ema: Tree | None
    seed: Any
    teacher: Tree | None = None
    frozen: Tree | None = None

    @property
    def variables(self) -> Tree:
        """Variables for `model.apply`, as trained."""
        trained = {"params": self.params, "batch_stats": self.batch_stats}
        return self._whole(trained)

    @property
    def best_variables(self) -> Tree:
        """Averaged variables where averaging is on, else the trained ones."""
        return self.variables if self.ema is None else self._whole(self.ema)

    def _whole(self, trained: Tree) -> Tree:
        held = self.frozen or {}
        return {kind: {**tree, **held.get(kind, {})} for kind, tree in trained.items()}


def create_state(
    variables: Tree,
    optimizer: optax.GradientTransformation,
    seed: int,
    ema: float,
    online: bool = False,
    frozen: Collection[str] = (),
) -> TrainState:
    """Start at step 0 from given variables.

    Args:
        variables: Parameters and statistics.
        optimizer: From `make_optimizer`.
        seed: Root of every random key.
        ema: Decay of averaged variables, 0 for none.
        online: Whether a teacher makes targets while training.
        frozen: Parts of the network that are not trained.
    """
    held, variables = (
        {
            kind: {
                part: tree
                for part, tree in variables[kind].items()
                if (part in frozen) == kept
            }
            for kind in ("params", "batch_stats")
        }
        for kept in (True, False)
    )

    def copy(wanted: bool) -> Tree | None:
        return jax.tree.map(lambda leaf: leaf.copy(), variables) if wanted else None

    return TrainState(
        step=jnp.zeros((), jnp.int32),
        params=variables["params"],
        batch_stats=variables["batch_stats"],
        opt_state=optimizer.init(variables["params"]),
        ema=copy(ema > 0),
        seed=jnp.asarray(seed, jnp.uint32),
        teacher=copy(online),
        frozen=held if frozen else None,
    )


def polynomial_schedule(
    learning_rate: float,
    min_learning_rate: float,
    power: float,
    steps: int,
    steps_per_decay: int,
) -> optax.Schedule:
    """Decay as RCF does: `(lr0 - min)(1 - e/E)^power + min`, e counted in epochs.

    Args:
        learning_rate: lr0, at step 0.
        min_learning_rate: What is left at the end.
        power: 0.9 in RCF.
        steps: Length of the run.
        steps_per_decay: Steps of one epoch, between which the rate is constant; 1
            decays at every step.
    """
    epochs = max(-(-steps // steps_per_decay), 1)

    def rate(step: HostOrDevice | int) -> jax.Array:
        left = 1.0 - jnp.minimum(step // steps_per_decay, epochs) / epochs
        return (learning_rate - min_learning_rate) * left**power + min_learning_rate

    return rate


def make_optimizer(
    schedule: optax.ScalarOrSchedule, weight_decay: float
) -> optax.GradientTransformation:
    """Adam with weight decay added to the gradient (coupled; not AdamW), paper Sec. 4.

    Like the authors' optimiser it decays every parameter, biases and scales included.
    """
    return optax.chain(
        optax.add_decayed_weights(weight_decay),
        optax.adam(schedule, b1=0.9, b2=0.999, eps=1e-8),
    )
