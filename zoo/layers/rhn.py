"""RHN."""

import keras

from gradkeeper.zoo.cells.rhn import RHNCell
from gradkeeper.zoo.layers.cell_layer import CellLayer


@keras.saving.register_keras_serializable(package="gradkeeper")
class RHN(CellLayer):
    """`RHNCell` as a layer, with the arguments of `keras.layers.GRU`.

    Zilly, Srivastava, Koutnik, Schmidhuber: "Recurrent Highway Networks", 2017, arXiv 1607.03474.
    See the cell for equations and weights, and `CellLayer` for shapes.
    """

    cell_class = RHNCell
