"""RAN."""

import keras

from gradkeeper.zoo.cells.ran import RANCell
from gradkeeper.zoo.layers.cell_layer import CellLayer


@keras.saving.register_keras_serializable(package="gradkeeper")
class RAN(CellLayer):
    """`RANCell` as a layer, with the arguments of `keras.layers.LSTM`.

    Lee, Levy, Zettlemoyer: "Recurrent Additive Networks", 2017, arXiv 1705.07393. See the cell for
    equations and weights, and `CellLayer` for shapes.
    """

    cell_class = RANCell
