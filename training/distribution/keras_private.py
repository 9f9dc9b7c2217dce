"""Private Keras names that `fit`, `evaluate` and `predict` need on several workers.

`_make_function`: makes the function that runs train and test steps on an iterator. It is the only
    hook after a model's own `train_step` and before Keras reduces the step's results.
`_maybe_symbolic_build` and `_symbolic_build`: build a model, its metrics and its optimizer from
    the first batch in `fit` and `evaluate`. No public argument disables this.
"""

from collections.abc import Callable
from typing import Any

import keras
import tensorflow as tf

# (major, minor). In other versions these names may have another meaning.
TESTED = ((3, 10), (3, 11), (3, 12), (3, 13), (3, 14), (3, 15), (3, 16))


def is_tested() -> bool:
    """Return True if these names were tested with the installed Keras."""
    return tuple(int(part) for part in keras.__version__.split(".")[:2]) in TESTED


def wrap_steps(model: keras.Model, wrap: Callable[[Callable], Callable]) -> None:
    """Make the model's train and test functions run `wrap(step)` instead of `step`.

    Several steps per execution run as a Python loop of single steps: TensorFlow cannot take
    distributed batches from an iterator inside a graph loop.
    """
    make = model._make_function

    def make_function(step: Callable) -> Callable:
        single = make(wrap(step))

        def function(iterator: Any) -> Any:
            steps = model.steps_per_execution
            if steps == 1 or not isinstance(iterator, tf.distribute.DistributedIterator):
                return single(iterator)
            outputs = None
            model.steps_per_execution = 1  # read while the step is traced
            try:
                for _ in range(steps):
                    outputs = single(iterator)
            except (StopIteration, tf.errors.OutOfRangeError):
                if outputs is None:
                    raise
            finally:
                model.steps_per_execution = steps
            return outputs

        return function

    # Write to the instance's dict directly: Keras's __setattr__ would track the value.
    vars(model)["_make_function"] = make_function
    model.train_function = model.test_function = None


def build_from(model: keras.Model, local: Callable[[Any], Any]) -> None:
    """Make `fit` and `evaluate` build the model from `local(batch)` instead of the batch."""

    def maybe_symbolic_build(iterator: Any = None, data_batch: Any = None) -> None:
        if iterator is not None:
            *_, batches = next(iter(iterator))  # preceded by one or two step numbers
            data_batch = next(batches)
        with model.distribute_strategy.scope():
            model._symbolic_build(data_batch=local(data_batch))

    vars(model)["_maybe_symbolic_build"] = maybe_symbolic_build


def is_wrapped(model: keras.Model) -> bool:
    """Return True if `wrap_steps` was called for the model."""
    return "_make_function" in vars(model)
