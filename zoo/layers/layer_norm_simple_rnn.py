"""LayerNormSimpleRNN."""

import keras

from gradkeeper.zoo.cells.layer_norm_simple_rnn import LayerNormSimpleRNNCell
from gradkeeper.zoo.layers.cell_layer import CellLayer


@keras.saving.register_keras_serializable(package="gradkeeper")
class LayerNormSimpleRNN(CellLayer):
    """`LayerNormSimpleRNNCell` as a layer, with the arguments of `keras.layers.SimpleRNN`.

    Ba, Kiros, Hinton: "Layer Normalization", 2016, arXiv 1607.06450. See the cell for equations and
    weights, and `CellLayer` for shapes.
    """

    cell_class = LayerNormSimpleRNNCell
