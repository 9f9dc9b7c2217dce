"""LEM."""

import keras

from gradkeeper.zoo.cells.lem import LEMCell
from gradkeeper.zoo.layers.cell_layer import CellLayer


@keras.saving.register_keras_serializable(package="gradkeeper")
class LEM(CellLayer):
    """`LEMCell` as a layer, with the arguments of `keras.layers.LSTM`.

    Rusch, Mishra, Erichson, Mahoney: "Long Expressive Memory for Sequence Modeling", 2022,
    arXiv 2110.04744. The cell's docstring has the equations and weights, `CellLayer` the
    shapes.
    """

    cell_class = LEMCell
