"""CoupledLSTM."""

import keras

from gradkeeper.zoo.cells.coupled_lstm import CoupledLSTMCell
from gradkeeper.zoo.layers.cell_layer import CellLayer


@keras.saving.register_keras_serializable(package="gradkeeper")
class CoupledLSTM(CellLayer):
    """`CoupledLSTMCell` as a layer, with the arguments of `keras.layers.LSTM`.

    Greff, Srivastava, Koutník, Steunebrink, Schmidhuber: "LSTM: A Search Space Odyssey", 2015,
    arXiv 1503.04069. The cell's docstring has the equations and weights, `CellLayer` the shapes.
    """

    cell_class = CoupledLSTMCell
