"""LayerNormLSTM."""

import keras

from gradkeeper.zoo.cells.layer_norm_lstm import LayerNormLSTMCell
from gradkeeper.zoo.layers.cell_layer import CellLayer


@keras.saving.register_keras_serializable(package="gradkeeper")
class LayerNormLSTM(CellLayer):
    """`LayerNormLSTMCell` as a layer, with the arguments of `keras.layers.LSTM`.

    Ba, Kiros, Hinton: "Layer Normalization", 2016, arXiv 1607.06450. See the cell for equations and
    weights, and `CellLayer` for shapes.
    """

    cell_class = LayerNormLSTMCell
