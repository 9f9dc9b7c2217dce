"""LiGRU."""

import keras

from gradkeeper.zoo.cells.li_gru import LiGRUCell
from gradkeeper.zoo.layers.cell_layer import CellLayer


@keras.saving.register_keras_serializable(package="gradkeeper")
class LiGRU(CellLayer):
    """`LiGRUCell` as a layer, with the arguments of `keras.layers.GRU`.

    Ravanelli, Brakel, Omologo, Bengio: "Light Gated Recurrent Units for Speech Recognition", 2018,
    arXiv 1803.10225. See the cell for equations and weights, and `CellLayer` for shapes.
    """

    cell_class = LiGRUCell
