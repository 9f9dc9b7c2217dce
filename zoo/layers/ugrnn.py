"""UGRNN."""

import keras

from gradkeeper.zoo.cells.ugrnn import UGRNNCell
from gradkeeper.zoo.layers.cell_layer import CellLayer


@keras.saving.register_keras_serializable(package="gradkeeper")
class UGRNN(CellLayer):
    """`UGRNNCell` as a layer, with the arguments of `keras.layers.LSTM`.

    Collins, Sohl-Dickstein, Sussillo: "Capacity and Trainability in Recurrent Neural Networks",
    2016, arXiv 1611.09913. See the cell for equations and weights, and `CellLayer` for shapes.
    """

    cell_class = UGRNNCell
