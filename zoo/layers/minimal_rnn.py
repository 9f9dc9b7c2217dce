"""MinimalRNN."""

import keras

from gradkeeper.zoo.cells.minimal_rnn import MinimalRNNCell
from gradkeeper.zoo.layers.cell_layer import CellLayer


@keras.saving.register_keras_serializable(package="gradkeeper")
class MinimalRNN(CellLayer):
    """`MinimalRNNCell` as a layer, with the arguments of `keras.layers.GRU`.

    Chen: "MinimalRNN: Toward More Interpretable and Trainable Recurrent Neural Networks", 2017,
    arXiv 1711.06788. See the cell for equations and weights, and `CellLayer` for shapes.
    """

    cell_class = MinimalRNNCell
