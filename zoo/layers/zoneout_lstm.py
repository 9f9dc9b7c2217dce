"""ZoneoutLSTM."""

import keras

from gradkeeper.zoo.cells.zoneout_lstm import ZoneoutLSTMCell
from gradkeeper.zoo.layers.cell_layer import CellLayer


@keras.saving.register_keras_serializable(package="gradkeeper")
class ZoneoutLSTM(CellLayer):
    """`ZoneoutLSTMCell` as a layer, with the arguments of `keras.layers.LSTM`.

    Krueger et al.: "Zoneout", 2017, arXiv 1606.01305. See the cell for equations and weights, and
    `CellLayer` for shapes.
    """

    cell_class = ZoneoutLSTMCell
