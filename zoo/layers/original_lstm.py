"""OriginalLSTM."""

import keras

from gradkeeper.zoo.cells.original_lstm import OriginalLSTMCell
from gradkeeper.zoo.layers.cell_layer import CellLayer


@keras.saving.register_keras_serializable(package="gradkeeper")
class OriginalLSTM(CellLayer):
    """`OriginalLSTMCell` as a layer, with the arguments of `keras.layers.LSTM`.

    Hochreiter, Schmidhuber: "Long Short-Term Memory", Neural Computation 9, 1997. See the cell for
    equations and weights, and `CellLayer` for shapes.
    """

    cell_class = OriginalLSTMCell
