"""CoupledLSTM."""

import keras

from gradkeeper.zoo.cells.coupled_lstm import CoupledLSTMCell
from gradkeeper.zoo.layers.cell_layer import CellLayer


@keras.saving.register_keras_serializable(package="gradkeeper")
class CoupledLSTM(CellLayer):
    """`CoupledLSTMCell` as a layer, with the arguments of `keras.layers.LSTM`.

    Greff, Srivastava, Koutník, Steunebrink, Schmidhuber: "LSTM: A Search Space Odyssey", 2015,
    arXiv 1503.04069. See the cell for equations and weights, and `CellLayer` for shapes.
    """

    cell_class = CoupledLSTMCell
