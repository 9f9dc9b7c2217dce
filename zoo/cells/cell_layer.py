"""Base class of the zoo's recurrent layers."""

from typing import Any, ClassVar

import keras

from gradkeeper._arguments import no_unknown
from gradkeeper.zoo._keras_private import rnn
from gradkeeper.zoo._typing import Config, State, StepOutput, Tensor
from gradkeeper.zoo.cells._options import option_defaults
from gradkeeper.zoo.cells.recurrent_cell import RecurrentCell

# Arguments of `keras.layers.RNN` and `keras.layers.Layer`, with their defaults.
_LAYER_OPTIONS: dict[str, Any] = {
    "return_sequences": False,
    "return_state": False,
    "go_backwards": False,
    "stateful": False,
    "unroll": False,
    "zero_output_for_mask": False,
    "activity_regularizer": None,
    "name": None,
    "dtype": None,
    "trainable": True,
}


class CellLayer(keras.layers.RNN):
    """Base class of layers of a `RecurrentCell`, with the arguments of `keras.layers.LSTM`.

    A subclass sets `cell_class`. The outputs are those of `keras.layers.RNN(cell)`. The layer is
    faster, because it prepares the inputs of all time steps before the loop
    (`RecurrentCell.prepare`) and computes functions of the weights once per sequence (`projector`,
    `stepper`). Inputs that are wider than the states are also projected in one matrix product
    before the loop. For narrower inputs, the memory traffic would cost more time than it saves.

    With `return_sequences`, a mask of the inputs, [batch, time], is passed to the next layer.

    Inputs: [batch, time, features]. Output: [batch, units], or with `return_sequences`
    [batch, time, units]; with `return_state` followed by the cell's states, each [batch, units].

    Args:
        units: width of the output.
        **options: options of the cell, and `return_sequences`, `return_state`, `go_backwards`,
            `stateful`, `unroll`, `zero_output_for_mask` as in `keras.layers.RNN`.

    Raises:
        TypeError: if an option is unknown to both the cell and the layer.
    """

    cell_class: ClassVar[type[RecurrentCell]]

    def __init__(self, units: int, **options: Any) -> None:
        allowed = self.option_defaults()
        no_unknown(type(self).__name__, set(options).difference(allowed), ["units", *allowed])
        layer = {name: options[name] for name in _LAYER_OPTIONS if name in options}
        cell = {name: value for name, value in options.items() if name not in layer}
        shared = {name: layer[name] for name in ("dtype", "trainable") if name in layer}
        super().__init__(self.cell_class(units, name="cell", **shared, **cell), **layer)
        self.input_spec = keras.layers.InputSpec(ndim=3)
        self.supports_masking = True  # False in `keras.layers.RNN` as of Keras 3.16

    @classmethod
    def option_defaults(cls) -> dict[str, Any]:
        """Return the keyword arguments with their defaults."""
        return {**option_defaults(cls.cell_class), **_LAYER_OPTIONS}

    def inner_loop(
        self, sequences: Tensor, initial_state: State, mask: Tensor | None, training: bool = False
    ) -> tuple[Tensor, Tensor, list[Tensor]]:
        cell = self.cell
        prepared = cell.prepare(sequences, training)
        project, recur = cell.projector(), cell.stepper(training)

        def step(inputs: Tensor, states: State) -> StepOutput:
            return recur(project(inputs), states)

        is_wide = sequences.shape[-1] > cell.units
        return rnn(
            recur if is_wide else step,
            project(prepared) if is_wide else prepared,
            initial_state,
            go_backwards=self.go_backwards,
            mask=mask,
            unroll=self.unroll,
            input_length=sequences.shape[1],
            zero_output_for_mask=self.zero_output_for_mask,
            return_all_outputs=self.return_sequences,
        )

    def get_config(self) -> Config:
        config = super().get_config()
        cell = config.pop("cell")["config"]
        options = {name: cell[name] for name in option_defaults(self.cell_class)}
        return {**config, "units": cell["units"], **options}

    @classmethod
    def from_config(cls, config: Config) -> "CellLayer":
        return cls(**config)
