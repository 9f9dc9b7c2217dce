"""FastRNN."""

import keras

from gradkeeper.zoo.cells.fast_rnn import FastRNNCell
from gradkeeper.zoo.layers.cell_layer import CellLayer


@keras.saving.register_keras_serializable(package="gradkeeper")
class FastRNN(CellLayer):
    """`FastRNNCell` as a layer, with the arguments of `keras.layers.SimpleRNN`.

    Kusupati et al.: "FastGRNN", 2018, arXiv 1901.02358. See the cell for equations and weights, and
    `CellLayer` for shapes.
    """

    cell_class = FastRNNCell
