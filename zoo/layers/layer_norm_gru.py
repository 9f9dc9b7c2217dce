"""LayerNormGRU."""

import keras

from gradkeeper.zoo.cells.layer_norm_gru import LayerNormGRUCell
from gradkeeper.zoo.layers.cell_layer import CellLayer


@keras.saving.register_keras_serializable(package="gradkeeper")
class LayerNormGRU(CellLayer):
    """`LayerNormGRUCell` as a layer, with the arguments of `keras.layers.GRU`.

    Ba, Kiros, Hinton: "Layer Normalization", 2016, arXiv 1607.06450. See the cell for equations and
    weights, and `CellLayer` for shapes.
    """

    cell_class = LayerNormGRUCell
