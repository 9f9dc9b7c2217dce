"""MGU."""

import keras

from gradkeeper.zoo.cells.mgu import MGUCell
from gradkeeper.zoo.layers.cell_layer import CellLayer


@keras.saving.register_keras_serializable(package="gradkeeper")
class MGU(CellLayer):
    """`MGUCell` as a layer, with the arguments of `keras.layers.GRU`.

    Zhou, Wu, Zhang, Zhou: "Minimal Gated Unit for Recurrent Neural Networks", 2016, arXiv
    1603.09420. See the cell for equations and weights, and `CellLayer` for shapes.
    """

    cell_class = MGUCell
