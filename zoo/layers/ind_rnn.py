"""IndRNN."""

import keras

from gradkeeper.zoo.cells.ind_rnn import IndRNNCell
from gradkeeper.zoo.layers.cell_layer import CellLayer


@keras.saving.register_keras_serializable(package="gradkeeper")
class IndRNN(CellLayer):
    """`IndRNNCell` as a layer, with the arguments of `keras.layers.SimpleRNN`.

    Li, Li, Cook, Zhu, Gao: "Independently Recurrent Neural Network", 2018, arXiv 1803.04831. See
    the cell for equations and weights, and `CellLayer` for shapes.
    """

    cell_class = IndRNNCell
