"""Weights and optimizer of a model, in memory."""

import keras

from gradkeeper.callbacks.tap.names import unlisted_variables


class Snapshot:
    """A copy of weights, layer states and optimizer.

    Args:
        model: the model.
        step: the train step before which it is made.
    """

    def __init__(self, model: keras.Model, step: int) -> None:
        self.step = step
        self._optimizer = model.optimizer
        self._variables = [
            *model.variables,
            *unlisted_variables(model),
            *self._optimizer.variables,
        ]
        self._values = [keras.ops.convert_to_numpy(variable) for variable in self._variables]

    def restore(self, lr_factor: float) -> None:
        """Puts everything back, but the learning rate is what it is now times a factor."""
        rate = float(keras.ops.convert_to_numpy(self._optimizer.learning_rate))
        for variable, value in zip(self._variables, self._values, strict=True):
            variable.assign(value)
        if lr_factor != 1:
            self._optimizer.learning_rate = rate * lr_factor
