"""STAR."""

import keras

from gradkeeper.zoo.cells.star import STARCell
from gradkeeper.zoo.layers.cell_layer import CellLayer


@keras.saving.register_keras_serializable(package="gradkeeper")
class STAR(CellLayer):
    """`STARCell` as a layer, with the arguments of `keras.layers.GRU`.

    Turkoglu, D'Aronco, Wegner, Schindler: "Gating Revisited: Deep Multi-layer RNNs That Can Be
    Trained", 2019, arXiv 1911.11033. The cell's docstring has the equations and weights,
    `CellLayer` the shapes.
    """

    cell_class = STARCell
