"""LipschitzRNN."""

import keras

from gradkeeper.zoo.cells.lipschitz_rnn import LipschitzRNNCell
from gradkeeper.zoo.layers.cell_layer import CellLayer


@keras.saving.register_keras_serializable(package="gradkeeper")
class LipschitzRNN(CellLayer):
    """`LipschitzRNNCell` as a layer, with the arguments of `keras.layers.SimpleRNN`.

    Erichson, Azencot, Queiruga, Hodgkinson, Mahoney: "Lipschitz Recurrent Neural Networks", 2021,
    arXiv 2006.12070. See the cell for equations and weights, and `CellLayer` for shapes.
    """

    cell_class = LipschitzRNNCell
