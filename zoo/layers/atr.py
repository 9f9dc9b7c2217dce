"""ATR."""

import keras

from gradkeeper.zoo.cells.atr import ATRCell
from gradkeeper.zoo.layers.cell_layer import CellLayer


@keras.saving.register_keras_serializable(package="gradkeeper")
class ATR(CellLayer):
    """`ATRCell` as a layer, with the arguments of `keras.layers.GRU`.

    Zhang, Xiong, Su, Lin, Zhang: "Simplifying Neural Machine Translation with Addition-Subtraction
    Twin-Gated Recurrent Networks", 2018, arXiv 1810.12546. See the cell for equations and weights,
    and `CellLayer` for shapes.
    """

    cell_class = ATRCell
