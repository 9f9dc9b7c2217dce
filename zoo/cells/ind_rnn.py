"""IndRNNCell, IndRNN and the constraint of their recurrent kernel."""

from typing import Any

import keras
from keras import ops

from gradkeeper._arguments import integer, number
from gradkeeper.zoo._typing import (
    Activation,
    Config,
    Constraint,
    Initializer,
    State,
    StepOutput,
    Tensor,
)
from gradkeeper.zoo.cells.cell_layer import CellLayer
from gradkeeper.zoo.cells.recurrent_cell import RecurrentCell


@keras.saving.register_keras_serializable(package="gradkeeper")
class MaxMagnitude(keras.constraints.Constraint):
    """Constraint that clips every element to [-limit, limit].

    Args:
        limit: largest magnitude, above 0.
    """

    def __init__(self, limit: float) -> None:
        self.limit = number("limit", limit)

    def __call__(self, w: Tensor) -> Tensor:
        return ops.clip(w, -self.limit, self.limit)

    def get_config(self) -> Config:
        return {"limit": self.limit}


@keras.saving.register_keras_serializable(package="gradkeeper")
class IndRNNCell(RecurrentCell):
    """Independently recurrent units: each unit receives only its own previous output.

    Li, Li, Cook, Zhu, Gao: "Independently Recurrent Neural Network (IndRNN): Building A Longer and
    Deeper RNN", 2018, arXiv 1803.04831, eq. 2::

        h_t = relu(W x_t + u * h_{t-1} + b), |u| <= 2^(1/T)

    Over T steps, the gradient of a unit is multiplied by at most |u|^T. With the bound (the paper's
    section 3.1, for a growth of at most 2), the gradient cannot explode.

    Inputs: x_t [batch, features]. States: h [batch, units]. Output: h_t [batch, units].

    Weights:
        kernel: W, [features, units].
        recurrent_kernel: u, [units], with a `MaxMagnitude` constraint for the bound.
        bias: b, [units]; None if `use_bias=False`.

    Args: those of `keras.layers.SimpleRNNCell`, and
        sequence_length: T of the bound. If None, the bound is 1. Ignored if
            `recurrent_constraint` is given.
    """

    def __init__(
        self,
        units: int,
        *,
        activation: Activation = "relu",
        recurrent_initializer: Initializer = None,
        recurrent_constraint: Constraint = None,
        sequence_length: int | None = None,
        **options: Any,
    ) -> None:
        if recurrent_initializer is None:
            recurrent_initializer = keras.initializers.RandomUniform(0, 1, options.get("seed"))
        if recurrent_constraint is None:
            recurrent_constraint = MaxMagnitude(_bound(sequence_length))
        super().__init__(
            units,
            activation=activation,
            recurrent_initializer=recurrent_initializer,
            recurrent_constraint=recurrent_constraint,
            **options,
        )
        self.sequence_length = sequence_length

    def recurrent_shape(self) -> tuple[int, ...]:
        return (self.units,)

    def recur(self, projected: Tensor, states: State, training: bool = False) -> StepOutput:
        seen = self.drop_state(states[0], training)
        h = self.activation(projected + self.recurrent_kernel * seen)
        return h, [h]


@keras.saving.register_keras_serializable(package="gradkeeper")
class IndRNN(CellLayer):
    """`IndRNNCell` as a layer, with the arguments of `keras.layers.SimpleRNN`."""

    cell_class = IndRNNCell


def _bound(sequence_length: int | None) -> float:
    if sequence_length is None:
        return 1.0
    return 2 ** (1 / integer("sequence_length", sequence_length))
