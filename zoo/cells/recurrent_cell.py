"""Base classes of the zoo's cells."""

from collections.abc import Callable
from functools import partial
from typing import Any, ClassVar

import keras
from keras import ops

from gradkeeper._arguments import integer, no_unknown, number
from gradkeeper.zoo._keras_private import DropoutRNNCell
from gradkeeper.zoo._typing import (
    Activation,
    Config,
    Constraint,
    Initializer,
    Regularizer,
    Shape,
    State,
    StepOutput,
    Tensor,
)
from gradkeeper.zoo.cells._options import LAYER_ARGUMENTS, option_defaults, resolve, serialize


class RecurrentCell(keras.layers.Layer, DropoutRNNCell):
    """Base class of Keras cells whose step has three parts.

    `prepare` applies operations without states and matrix products, such as dropout. `project` maps
    the result of `prepare` and needs no states. `recur` combines this result with the states.
    `call` runs the three parts in this order. A layer can therefore prepare all time steps before
    its loop, and project them in one matrix product if that is faster
    (`gradkeeper.zoo.layers.CellLayer`).

    A subclass defines `recur` and sets:
        gates: number of blocks of `units` columns in the kernel.
        recurrent_gates: number of blocks in the recurrent kernel, if it differs from `gates`.
        biased: slice of the blocks of the kernel that have a bias, if not all have one.
        state_count: number of states.
        forget_gate: a state and the gate that is the weight of its old value, if there is one.
        update_gate: a state and the gate for which 1 - gate is the weight of its old value.

    A subclass overrides `build` to add weights, and `project` for anything other than
    `prepared @ kernel + bias`. Options of a subclass are keyword-only arguments of its constructor.
    They must be stored in attributes of the same name, because configs and layers read them there.

    Weights:
        kernel: [features, gates * units].
        recurrent_kernel: [units, recurrent_gates * units].
        bias: [gates * units], or the blocks selected by `biased`; None if `use_bias=False`.

    Args:
        units: width of the output and of each state.
        activation: activation of the candidate state.
        dropout: fraction of the inputs to drop, with one mask for all steps and gates.
        recurrent_dropout: fraction of the previous output to drop, with one mask for all steps
            and gates.
        seed: seed of the dropout masks.

    Raises:
        ValueError: if `units` is below 1, or if a dropout rate is outside [0, 1).
        TypeError: if an argument is unknown.
    """

    gates: ClassVar[int] = 1
    recurrent_gates: ClassVar[int | None] = None
    biased: slice = slice(None)
    state_count: ClassVar[int] = 1
    forget_gate: ClassVar[tuple[str, str] | None] = None
    update_gate: ClassVar[tuple[str, str] | None] = None

    def __init__(
        self,
        units: int,
        *,
        activation: Activation = "tanh",
        use_bias: bool = True,
        kernel_initializer: Initializer = "glorot_uniform",
        recurrent_initializer: Initializer = "orthogonal",
        bias_initializer: Initializer = "zeros",
        kernel_regularizer: Regularizer = None,
        recurrent_regularizer: Regularizer = None,
        bias_regularizer: Regularizer = None,
        kernel_constraint: Constraint = None,
        recurrent_constraint: Constraint = None,
        bias_constraint: Constraint = None,
        dropout: float = 0.0,
        recurrent_dropout: float = 0.0,
        seed: int | None = None,
        name: str | None = None,
        dtype: Any = None,
        trainable: bool = True,
        **unknown: Any,
    ) -> None:
        allowed = {"units", *option_defaults(type(self)), *LAYER_ARGUMENTS}
        no_unknown(type(self).__name__, unknown, allowed)
        super().__init__(name=name, dtype=dtype, trainable=trainable)
        self.units = integer("units", units)
        self.activation = resolve("activation", activation)
        self.use_bias = use_bias
        self.kernel_initializer = resolve("kernel_initializer", kernel_initializer)
        self.recurrent_initializer = resolve("recurrent_initializer", recurrent_initializer)
        self.bias_initializer = resolve("bias_initializer", bias_initializer)
        self.kernel_regularizer = resolve("kernel_regularizer", kernel_regularizer)
        self.recurrent_regularizer = resolve("recurrent_regularizer", recurrent_regularizer)
        self.bias_regularizer = resolve("bias_regularizer", bias_regularizer)
        self.kernel_constraint = resolve("kernel_constraint", kernel_constraint)
        self.recurrent_constraint = resolve("recurrent_constraint", recurrent_constraint)
        self.bias_constraint = resolve("bias_constraint", bias_constraint)
        self.dropout = number("dropout", dropout, "[0, 1)")
        self.recurrent_dropout = number("recurrent_dropout", recurrent_dropout, "[0, 1)")
        self.seed = seed
        self.seed_generator = keras.random.SeedGenerator(seed)
        self.state_size = self.units if self.state_count == 1 else [self.units] * self.state_count
        self.output_size = self.units

    def build(self, input_shape: Shape) -> None:
        self.kernel = self.add_kernel("kernel", (input_shape[-1], self.gates * self.units))
        shape = self.recurrent_shape()
        self.recurrent_kernel = shape and self.add_recurrent("recurrent_kernel", shape)
        biased_blocks = len(range(self.gates)[self.biased])
        self.bias = self.add_bias("bias", biased_blocks * self.units, self.initial_bias)
        self.built = True

    def add_kernel(self, name: str, shape: Shape) -> Tensor:
        """Add a weight with the kernel options of the cell."""
        return self.add_weight(
            shape=shape,
            name=name,
            initializer=self.kernel_initializer,
            regularizer=self.kernel_regularizer,
            constraint=self.kernel_constraint,
        )

    def recurrent_shape(self) -> tuple[int, ...] | None:
        """Return the shape of `recurrent_kernel`, or None if the cell has none."""
        return (self.units, (self.recurrent_gates or self.gates) * self.units)

    def add_recurrent(self, name: str, shape: Shape, initializer: Initializer = None) -> Tensor:
        """Add a weight with the recurrent options of the cell.

        An initializer returns the same numbers in every call, but two matrices must not start
        equal. A weight after the recurrent kernel therefore has another seed.
        """
        return self.add_weight(
            shape=shape,
            name=name,
            initializer=initializer or _reseeded(self.recurrent_initializer, len(self.weights) - 1),
            regularizer=self.recurrent_regularizer,
            constraint=self.recurrent_constraint,
        )

    def add_bias(self, name: str, width: int, initializer: Initializer = None) -> Tensor | None:
        """Add a weight [width] with the bias options of the cell; None if `use_bias=False`."""
        if not self.use_bias:
            return None
        return self.add_weight(
            shape=(width,),
            name=name,
            initializer=initializer or self.bias_initializer,
            regularizer=self.bias_regularizer,
            constraint=self.bias_constraint,
        )

    def initial_bias(self, shape: Shape, dtype: str | None = None) -> Tensor:
        """Return the initial value of `bias`. Override it to start gates open or closed."""
        return self.bias_initializer(shape, dtype=dtype)

    def prepare(self, inputs: Tensor, training: bool = False) -> Tensor:
        """Compute the part of a step that a layer always runs once for the whole sequence.

        Args:
            inputs: one step [batch, features], or a sequence [batch, time, features].
            training: whether to apply dropout.

        Returns:
            A tensor of the same rank. The cell chooses the width.
        """
        return self.drop_inputs(inputs, training)

    def project(self, prepared: Tensor) -> Tensor:
        """Compute the part of a step that needs no states.

        Args:
            prepared: result of `prepare`, for one step or for a sequence.

        Returns:
            A tensor of the same rank. The cell chooses the width.
        """
        projected = ops.matmul(prepared, self.kernel)
        return projected if self.bias is None else projected + self._bias_of_all_blocks()

    def recur(self, projected: Tensor, states: State, training: bool = False) -> StepOutput:
        """Compute the part of a step that needs the states.

        Args:
            projected: result of `project` for one time step.
            states: `state_count` tensors [batch, units], the previous output first.
            training: whether to apply recurrent dropout.

        Returns:
            The output [batch, units], and the states after the step.
        """
        raise NotImplementedError(f"{type(self).__name__} must define `recur`.")

    def record_gate(self, name: str, value: Tensor) -> Tensor:
        """Return the value of a gate. `gradkeeper.callbacks.gate_report` records it.

        Args:
            name: symbol of the gate in the cell's equations.
            value: [batch, units].
        """
        return value

    def carry(self, gates: dict[str, Tensor]) -> dict[str, Tensor]:
        """Compute the weights of the states' old values in a step.

        The derivative of a state with respect to its old value contains this weight as the direct
        path, without the paths through gates and candidate.

        Args:
            gates: the recorded gates by name.

        Returns:
            The weights by state; empty if no state is kept in part.
        """
        if self.forget_gate is not None:
            state, name = self.forget_gate
            return {state: gates[name]}
        if self.update_gate is not None:
            state, name = self.update_gate
            return {state: 1 - gates[name]}
        return {}

    def _bias_of_all_blocks(self) -> Tensor:
        """Return the bias, padded with zeros for the blocks that have no bias."""
        first, end, _ = self.biased.indices(self.gates)
        if end - first == self.gates:
            return self.bias
        return ops.pad(self.bias, [(first * self.units, (self.gates - end) * self.units)])

    def projector(self) -> Callable[[Tensor], Tensor]:
        """Return `project` for all steps of one sequence; see `stepper`."""
        return self.project

    def stepper(self, training: bool = False) -> Callable[[Tensor, State], StepOutput]:
        """Return `recur` as a function of `projected` and `states`, for all steps of one sequence.

        A cell can override this method to compute values from its weights once per sequence and
        pass them to `recur` as a further argument, as in `ComputedKernelCell`.
        """
        return partial(self.recur, training=training)

    def call(
        self, inputs: Tensor, states: State | Tensor, training: bool = False
    ) -> tuple[Tensor, State | Tensor]:
        nested = isinstance(states, (list, tuple))
        projected = self.projector()(self.prepare(inputs, training))
        output, after = self.stepper(training)(projected, states if nested else [states])
        return output, after if nested else after[0]

    def drop_inputs(self, inputs: Tensor, training: bool) -> Tensor:
        """Apply the sequence's dropout mask to one step or to a whole sequence."""
        if not training or self.dropout == 0:
            return inputs
        if len(inputs.shape) == 2:
            return inputs * self.get_dropout_mask(inputs)
        return inputs * self.get_dropout_mask(inputs[:, 0])[:, None]

    def drop_state(self, state: Tensor, training: bool) -> Tensor:
        """Apply the sequence's recurrent dropout mask to a state."""
        if not training or self.recurrent_dropout == 0:
            return state
        return state * self.get_recurrent_dropout_mask(state)

    def get_initial_state(self, batch_size: int | None = None) -> list[Tensor]:
        """Return zeros: `state_count` tensors [batch_size, units]."""
        return [
            ops.zeros((batch_size, self.units), dtype=self.compute_dtype)
            for _ in range(self.state_count)
        ]

    def get_config(self) -> Config:
        options = {
            option: serialize(option, getattr(self, option))
            for option in option_defaults(type(self))
        }
        return {**super().get_config(), "units": self.units, **options}


def _reseeded(initializer: Initializer, increase: int) -> Initializer:
    """Return a copy of the initializer with another seed, or itself if `increase` is 0."""
    if increase == 0 or not isinstance(initializer, keras.initializers.Initializer):
        return initializer
    config = initializer.get_config()
    if isinstance(config.get("seed"), int):
        config["seed"] += increase
    return type(initializer).from_config(config)


class ComputedKernelCell(RecurrentCell):
    """Base class of cells whose recurrent kernel is a function of weights, constant over the steps.

    A subclass defines `compute_kernel`, and a `recur` that takes its result as the argument
    `kernel`.
    """

    def compute_kernel(self) -> Tensor:
        """Compute the matrix that multiplies the states, once per sequence."""
        raise NotImplementedError(f"{type(self).__name__} must define `compute_kernel`.")

    def stepper(self, training: bool = False) -> Callable[[Tensor, State], StepOutput]:
        return partial(self.recur, training=training, kernel=self.compute_kernel())

    def recur(
        self, projected: Tensor, states: State, training: bool = False, kernel: Tensor = None
    ) -> StepOutput:
        raise NotImplementedError(f"{type(self).__name__} must define `recur`.")
