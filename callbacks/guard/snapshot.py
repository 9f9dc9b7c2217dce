"""Snapshot of a model and its optimizer in memory."""

import keras

from gradkeeper.callbacks.instrument.variable_names import unlisted_variables


class Snapshot:
    """Copy of weights, layer states and optimizer variables.

    Args:
        model: the model.
        step: the train step that follows the copy.
    """

    def __init__(self, model: keras.Model, step: int) -> None:
        self.step = step
        self._optimizer = model.optimizer
        own, hidden = model.variables, unlisted_variables(model)
        self._variables = [*own, *hidden, *self._optimizer.variables]
        self._values = [keras.ops.convert_to_numpy(variable) for variable in self._variables]

    def restore(self, lr_factor: float) -> None:
        """Restore all variables; unless `lr_factor` is 1, scale the current learning rate by it."""
        rate = float(keras.ops.convert_to_numpy(self._optimizer.learning_rate))
        for variable, value in zip(self._variables, self._values, strict=True):
            variable.assign(value)
        if lr_factor != 1:
            self._optimizer.learning_rate = rate * lr_factor
