"""MultiplicativeLSTM."""

import keras

from gradkeeper.zoo.cells.multiplicative_lstm import MultiplicativeLSTMCell
from gradkeeper.zoo.layers.cell_layer import CellLayer


@keras.saving.register_keras_serializable(package="gradkeeper")
class MultiplicativeLSTM(CellLayer):
    """`MultiplicativeLSTMCell` as a layer, with the arguments of `keras.layers.LSTM`.

    Krause, Lu, Murray, Renals: "Multiplicative LSTM for sequence modelling", 2016, arXiv
    1609.07959. See the cell for equations and weights, and `CellLayer` for shapes.
    """

    cell_class = MultiplicativeLSTMCell
