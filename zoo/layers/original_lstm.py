"""OriginalLSTM."""

import keras

from gradkeeper.zoo.cells.original_lstm import OriginalLSTMCell
from gradkeeper.zoo.layers.cell_layer import CellLayer


@keras.saving.register_keras_serializable(package="gradkeeper")
class OriginalLSTM(CellLayer):
    """`OriginalLSTMCell` as a layer, with the arguments of `keras.layers.LSTM`.

    Hochreiter, Schmidhuber: "Long Short-Term Memory", Neural Computation 9, 1997. The cell's
    docstring has the equations and weights, `CellLayer` the shapes.
    """

    cell_class = OriginalLSTMCell
