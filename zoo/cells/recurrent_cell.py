"""The base of the zoo's cells."""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, ClassVar

import keras
from keras import ops

from gradkeeper.zoo import _checks
from gradkeeper.zoo._keras_private import DropoutRNNCell
from gradkeeper.zoo.cells._options import LAYER_ARGUMENTS, cell_options, resolve, serialize


class RecurrentCell(keras.layers.Layer, DropoutRNNCell):
    """A Keras cell whose step is split in three.

    `prepare` does what needs neither weights' products nor states, such as dropout; `project` maps
    what it leaves and knows no state; `recur` combines the result with the states. `call` is one
    after the other. A layer can therefore prepare all time steps at once before its loop, and
    project them in one matrix product where that is faster (`gradkeeper.zoo.layers.CellLayer`).

    A subclass sets `gates` (blocks of `units` columns in the kernel), `recurrent_gates` (the same
    of the recurrent kernel, where it has fewer), `biased` (which blocks of the kernel have a bias,
    where not all do) and `state_count`, and writes `recur`; it overrides `build` for further
    weights and `project` for anything besides `prepared @ kernel + bias`. Options of its own are
    keyword-only arguments of its constructor, kept as attributes of the same name: configs and
    layers find them there.

    Weights:
        kernel: [features, gates * units].
        recurrent_kernel: [units, recurrent_gates * units].
        bias: [gates * units], or the blocks `biased` of it; None without `use_bias`.

    Args:
        units: width of the output and of each state.
        activation: of the candidate state.
        dropout: fraction of the inputs to drop, one mask for all steps and gates.
        recurrent_dropout: fraction of the previous output to drop, one mask likewise.
        seed: of the dropout masks.

    Raises:
        ValueError: `units` below 1, or a dropout outside [0, 1).
        TypeError: unknown arguments.
    """

    gates: ClassVar[int] = 1
    recurrent_gates: ClassVar[int | None] = None
    biased: slice = slice(None)
    state_count: ClassVar[int] = 1

    def __init__(
        self,
        units: int,
        *,
        activation: Any = "tanh",
        use_bias: bool = True,
        kernel_initializer: Any = "glorot_uniform",
        recurrent_initializer: Any = "orthogonal",
        bias_initializer: Any = "zeros",
        kernel_regularizer: Any = None,
        recurrent_regularizer: Any = None,
        bias_regularizer: Any = None,
        kernel_constraint: Any = None,
        recurrent_constraint: Any = None,
        bias_constraint: Any = None,
        dropout: float = 0.0,
        recurrent_dropout: float = 0.0,
        seed: int | None = None,
        name: str | None = None,
        dtype: Any = None,
        trainable: bool = True,
        **unknown: Any,
    ) -> None:
        allowed = {"units", *cell_options(type(self)), *LAYER_ARGUMENTS}
        _checks.no_unknown(type(self).__name__, unknown, allowed)
        super().__init__(name=name, dtype=dtype, trainable=trainable)
        self.units = _checks.positive_int("units", units)
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
        self.dropout = _checks.rate("dropout", dropout)
        self.recurrent_dropout = _checks.rate("recurrent_dropout", recurrent_dropout)
        self.seed = seed
        self.seed_generator = keras.random.SeedGenerator(seed)
        self.state_size = self.units if self.state_count == 1 else [self.units] * self.state_count
        self.output_size = self.units

    def build(self, input_shape: Sequence[int | None]) -> None:
        self.kernel = self.add_kernel("kernel", (input_shape[-1], self.gates * self.units))
        shape = self.recurrent_shape()
        self.recurrent_kernel = shape and self.add_recurrent("recurrent_kernel", shape)
        biased_blocks = len(range(self.gates)[self.biased])
        self.bias = self.add_bias("bias", biased_blocks * self.units, self.initial_bias)
        self.built = True

    def add_kernel(self, name: str, shape: Sequence[int | None]) -> Any:
        """A weight that makes vectors of vectors, with the kernel options of the cell."""
        return self.add_weight(
            shape=shape,
            name=name,
            initializer=self.kernel_initializer,
            regularizer=self.kernel_regularizer,
            constraint=self.kernel_constraint,
        )

    def recurrent_shape(self) -> tuple[int, ...] | None:
        """Of `recurrent_kernel`; for cells where it is no matrix of gates, or where there is none."""
        return (self.units, (self.recurrent_gates or self.gates) * self.units)

    def add_recurrent(self, name: str, shape: Sequence[int], initializer: Any = None) -> Any:
        """A weight on the states, with the recurrent options of the cell."""
        return self.add_weight(
            shape=shape,
            name=name,
            initializer=initializer or self.recurrent_initializer,
            regularizer=self.recurrent_regularizer,
            constraint=self.recurrent_constraint,
        )

    def add_bias(self, name: str, width: int, initializer: Any = None) -> Any:
        """A bias weight [width] with the bias options of the cell; None without `use_bias`."""
        if not self.use_bias:
            return None
        return self.add_weight(
            shape=(width,),
            name=name,
            initializer=initializer or self.bias_initializer,
            regularizer=self.bias_regularizer,
            constraint=self.bias_constraint,
        )

    def initial_bias(self, shape: Sequence[int], dtype: Any = None) -> Any:
        """First value of `bias`; for cells that start some gates open or closed."""
        return self.bias_initializer(shape, dtype=dtype)

    def prepare(self, inputs: Any, training: bool = False) -> Any:
        """The part of a step that is done for a whole sequence at once, always.

        Args:
            inputs: [batch, features], or a whole sequence [batch, time, features].

        Returns:
            One tensor of the same rank; the width is the cell's own choice.
        """
        return self.drop_inputs(inputs, training)

    def project(self, prepared: Any) -> Any:
        """The part of a step that needs no state.

        Args:
            prepared: what `prepare` made of a step or of a whole sequence.

        Returns:
            One tensor of the same rank; the width is the cell's own choice.
        """
        projected = ops.matmul(prepared, self.kernel)
        return projected if self.bias is None else projected + self._wide_bias()

    def recur(
        self, projected: Any, states: Sequence[Any], training: bool = False
    ) -> tuple[Any, list[Any]]:
        """The part of a step that needs the states.

        Args:
            projected: what `project` made of one time step.
            states: `state_count` tensors [batch, units], the previous output first.

        Returns:
            The output [batch, units], and the states after the step.
        """
        raise NotImplementedError(f"{type(self).__name__} must define `recur`.")

    def _wide_bias(self) -> Any:
        """The bias with zeros for the blocks that have none."""
        first, end, _ = self.biased.indices(self.gates)
        if end - first == self.gates:
            return self.bias
        return ops.pad(self.bias, [(first * self.units, (self.gates - end) * self.units)])

    def projector(self) -> Callable[[Any], Any]:
        """`project` for all steps of one sequence; see `stepper`."""
        return self.project

    def stepper(self, training: bool = False) -> Callable[[Any, Any], tuple[Any, list[Any]]]:
        """`recur` as a function of `projected` and `states`, for all steps of one sequence.

        What a cell makes of its weights alone, it makes here, once per sequence, and hands to
        `recur` as a further argument (`MadeKernelCell`).
        """
        return partial(self.recur, training=training)

    def call(self, inputs: Any, states: Any, training: bool = False) -> tuple[Any, Any]:
        nested = isinstance(states, (list, tuple))
        projected = self.projector()(self.prepare(inputs, training))
        output, after = self.stepper(training)(projected, states if nested else [states])
        return output, after if nested else after[0]

    def drop_inputs(self, inputs: Any, training: bool) -> Any:
        """Applies the sequence's dropout mask to one step or to all of them alike."""
        if not training or self.dropout == 0:
            return inputs
        if len(inputs.shape) == 2:
            return inputs * self.get_dropout_mask(inputs)
        return inputs * self.get_dropout_mask(inputs[:, 0])[:, None]

    def drop_state(self, state: Any, training: bool) -> Any:
        """Applies the sequence's recurrent dropout mask."""
        if not training or self.recurrent_dropout == 0:
            return state
        return state * self.get_recurrent_dropout_mask(state)

    def get_initial_state(self, batch_size: Any = None) -> list[Any]:
        """Zeros: `state_count` tensors [batch_size, units]."""
        return [
            ops.zeros((batch_size, self.units), dtype=self.compute_dtype)
            for _ in range(self.state_count)
        ]

    def get_config(self) -> dict[str, Any]:
        options = {
            option: serialize(option, getattr(self, option)) for option in cell_options(type(self))
        }
        return {**super().get_config(), "units": self.units, **options}
