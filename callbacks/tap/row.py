"""Row of statistics that a measured train step writes for an optimizer call.

A row has three values per variable and two values of the step. Separate rows would take more
operations, whose cost is measurable in a step of a few milliseconds.
"""

import numpy as np
import tensorflow as tf

from gradkeeper.callbacks.tap.ring import MISSING

# Statistics of each variable, followed by those of the train step.
MEASURED = ("norm", "max_abs", "nonfinite")
OF_STEP = ("loss", "learning_rate")


def empty_row(variables: int) -> np.ndarray:
    """Return the row of a step that has written nothing, [3 * variables + 2]."""
    nothing = np.full(len(MEASURED) * variables, MISSING)
    return np.concatenate([nothing, np.full(len(OF_STEP), np.nan)])


def row_of(
    measured: tf.Tensor, loss: tf.Tensor | None, learning_rate: tf.Tensor | None
) -> tf.Tensor:
    """Return the row, [3 * variables + 2], in the dtype of `measured`.

    Args:
        measured: the statistics of each variable, [3, variables].
        loss: a scalar; None if the loss is unknown or recorded elsewhere.
        learning_rate: a scalar; None if there is none.
    """
    unknown = tf.constant(float("nan"), measured.dtype)
    scalars = [
        unknown if each is None else tf.cast(each, measured.dtype) for each in (loss, learning_rate)
    ]
    return tf.concat([tf.reshape(measured, [-1]), tf.stack(scalars)], axis=0)


def by_variable(rows: np.ndarray) -> dict[str, np.ndarray]:
    """Return the statistics by name, [steps, variables], of rows [steps, 3 * variables + 2]."""
    measured = rows[:, : -len(OF_STEP)].reshape(len(rows), len(MEASURED), -1)
    return {name: measured[:, i] for i, name in enumerate(MEASURED)}


def of_step(rows: np.ndarray, name: str) -> np.ndarray:
    """Return the statistic of this name of each train step, [steps]."""
    return rows[:, OF_STEP.index(name) - len(OF_STEP)]
