"""The row that a measured train step writes about a call of an optimizer.

Three numbers of each variable and two of the step: a row of its own for each of those would be
some operations more, and a step of a few milliseconds shows them.
"""

import numpy as np
import tensorflow as tf

from gradkeeper.callbacks.tap.ring import MISSING

# By variable, then by train step.
MEASURED = ("norm", "max_abs", "nonfinite")
OF_STEP = ("loss", "learning_rate")


def empty_row(variables: int) -> np.ndarray:
    """The row of a step that has written nothing, [3 * variables + 2]."""
    nothing = np.full(len(MEASURED) * variables, MISSING)
    return np.concatenate([nothing, np.full(len(OF_STEP), np.nan)])


def row_of(
    measured: tf.Tensor, loss: tf.Tensor | None, learning_rate: tf.Tensor | None
) -> tf.Tensor:
    """The row, [3 * variables + 2], in the dtype of what was measured.

    Args:
        measured: of each variable, [3, variables].
        loss: a scalar; None where it is not known, or written elsewhere.
        learning_rate: a scalar; None if there is none.
    """
    unknown = tf.constant(float("nan"), measured.dtype)
    scalars = [
        unknown if each is None else tf.cast(each, measured.dtype) for each in (loss, learning_rate)
    ]
    return tf.concat([tf.reshape(measured, [-1]), tf.stack(scalars)], axis=0)


def by_variable(rows: np.ndarray) -> dict[str, np.ndarray]:
    """What rows, [steps, 3 * variables + 2], tell of each variable, [steps, variables]."""
    measured = rows[:, : -len(OF_STEP)].reshape(len(rows), len(MEASURED), -1)
    return {name: measured[:, i] for i, name in enumerate(MEASURED)}


def of_step(rows: np.ndarray, name: str) -> np.ndarray:
    """What rows tell of their step, [steps]."""
    return rows[:, OF_STEP.index(name) - len(OF_STEP)]
