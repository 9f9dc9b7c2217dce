"""SLSTM."""

import keras

from gradkeeper.zoo.cells.s_lstm import SLSTMCell
from gradkeeper.zoo.layers.cell_layer import CellLayer


@keras.saving.register_keras_serializable(package="gradkeeper")
class SLSTM(CellLayer):
    """`SLSTMCell` as a layer, with the arguments of `keras.layers.LSTM`.

    Beck et al.: "xLSTM: Extended Long Short-Term Memory", 2024, arXiv 2405.04517. See the cell for
    equations and weights, and `CellLayer` for shapes.
    """

    cell_class = SLSTMCell
