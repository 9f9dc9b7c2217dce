"""The private Keras names by which `fit`, `evaluate` and `predict` run on several workers.

`_make_function`: makes the function that runs train and test steps on an iterator, the only
    place behind a model's own `train_step` and before Keras reduces what it returns.
`_maybe_symbolic_build` and `_symbolic_build`: how `fit` and `evaluate` build a model, its
    metrics and its optimizer from the first batch; no argument leaves that out.
"""

from collections.abc import Callable
from typing import Any

import keras
import tensorflow as tf

# By major and minor number. Of others it is not known whether these names mean the same.
TESTED = ((3, 10), (3, 11), (3, 12), (3, 13), (3, 14), (3, 15), (3, 16))


def is_tested() -> bool:
    """Whether this Keras is one of the versions that the names were tried with."""
    return tuple(int(part) for part in keras.__version__.split(".")[:2]) in TESTED


def wrap_steps(model: keras.Model, wrap: Callable[[Callable], Callable]) -> None:
    """Has the model's train and test functions run `wrap(step)` in place of a step.

    Executions of several steps are a loop of single ones: TensorFlow cannot take the batches of
    several workers from their iterator in a graph's loop.
    """
    make = model._make_function

    def make_function(step: Callable) -> Callable:
        single = make(wrap(step))

        def function(iterator: Any) -> Any:
            steps = model.steps_per_execution
            if steps == 1 or not isinstance(iterator, tf.distribute.DistributedIterator):
                return single(iterator)
            outputs = None
            model.steps_per_execution = 1  # asked for while the step is traced
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

    # Straight into the instance's dict: Keras's __setattr__ would track the value.
    vars(model)["_make_function"] = make_function
    model.train_function = model.test_function = None


def build_from(model: keras.Model, local: Callable[[Any], Any]) -> None:
    """Has `fit` and `evaluate` build the model from `local(batch)` in place of a batch."""

    def maybe_symbolic_build(iterator: Any = None, data_batch: Any = None) -> None:
        if iterator is not None:
            *_, batches = next(iter(iterator))  # behind one step number, or two
            data_batch = next(batches)
        with model.distribute_strategy.scope():
            model._symbolic_build(data_batch=local(data_batch))

    vars(model)["_maybe_symbolic_build"] = maybe_symbolic_build


def is_wrapped(model: keras.Model) -> bool:
    """Whether `wrap_steps` was called for the model."""
    return "_make_function" in vars(model)
