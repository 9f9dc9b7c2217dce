"""CFN."""

import keras

from gradkeeper.zoo.cells.cfn import CFNCell
from gradkeeper.zoo.layers.cell_layer import CellLayer


@keras.saving.register_keras_serializable(package="gradkeeper")
class CFN(CellLayer):
    """`CFNCell` as a layer, with the arguments of `keras.layers.LSTM`.

    Laurent, von Brecht: "A recurrent neural network without chaos", 2016, arXiv 1612.06212. See the
    cell for equations and weights, and `CellLayer` for shapes.
    """

    cell_class = CFNCell
