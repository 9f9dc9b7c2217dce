"""STAR."""

import keras

from gradkeeper.zoo.cells.star import STARCell
from gradkeeper.zoo.layers.cell_layer import CellLayer


@keras.saving.register_keras_serializable(package="gradkeeper")
class STAR(CellLayer):
    """`STARCell` as a layer, with the arguments of `keras.layers.GRU`.

    Turkoglu, D'Aronco, Wegner, Schindler: "Gating Revisited: Deep Multi-layer RNNs That Can Be
    Trained", 2019, arXiv 1911.11033. See the cell for equations and weights, and `CellLayer` for
    shapes.
    """

    cell_class = STARCell
