"""JANET."""

import keras

from gradkeeper.zoo.cells.janet import JANETCell
from gradkeeper.zoo.layers.cell_layer import CellLayer


@keras.saving.register_keras_serializable(package="gradkeeper")
class JANET(CellLayer):
    """`JANETCell` as a layer, with the arguments of `keras.layers.LSTM`.

    Van der Westhuizen, Lasenby: "The unreasonable effectiveness of the forget gate", 2018, arXiv
    1804.04849. See the cell for equations and weights, and `CellLayer` for shapes.
    """

    cell_class = JANETCell
