"""JANET."""

import keras

from gradkeeper.zoo.cells.janet import JANETCell
from gradkeeper.zoo.layers.cell_layer import CellLayer


@keras.saving.register_keras_serializable(package="gradkeeper")
class JANET(CellLayer):
    """`JANETCell` as a layer, with the arguments of `keras.layers.LSTM`.

    Van der Westhuizen, Lasenby: "The unreasonable effectiveness of the forget gate", 2018,
    arXiv 1804.04849. The cell's docstring has the equations and weights, `CellLayer` the
    shapes.
    """

    cell_class = JANETCell
