"""LEM."""

import keras

from gradkeeper.zoo.cells.lem import LEMCell
from gradkeeper.zoo.layers.cell_layer import CellLayer


@keras.saving.register_keras_serializable(package="gradkeeper")
class LEM(CellLayer):
    """`LEMCell` as a layer, with the arguments of `keras.layers.LSTM`.

    Rusch, Mishra, Erichson, Mahoney: "Long Expressive Memory for Sequence Modeling", 2022, arXiv
    2110.04744. See the cell for equations and weights, and `CellLayer` for shapes.
    """

    cell_class = LEMCell
