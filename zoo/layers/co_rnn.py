"""CoRNN."""

import keras

from gradkeeper.zoo.cells.co_rnn import CoRNNCell
from gradkeeper.zoo.layers.cell_layer import CellLayer


@keras.saving.register_keras_serializable(package="gradkeeper")
class CoRNN(CellLayer):
    """`CoRNNCell` as a layer, with the arguments of `keras.layers.SimpleRNN`.

    Rusch, Mishra: "Coupled Oscillatory Recurrent Neural Network (coRNN): An accurate and (gradient)
    stable architecture for learning long time dependencies", 2021, arXiv 2010.00951. See the cell
    for equations and weights, and `CellLayer` for shapes.
    """

    cell_class = CoRNNCell
