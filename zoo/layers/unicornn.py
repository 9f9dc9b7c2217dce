"""UnICORNN."""

import keras

from gradkeeper.zoo.cells.unicornn import UnICORNNCell
from gradkeeper.zoo.layers.cell_layer import CellLayer


@keras.saving.register_keras_serializable(package="gradkeeper")
class UnICORNN(CellLayer):
    """`UnICORNNCell` as a layer, with the arguments of `keras.layers.SimpleRNN`.

    Rusch, Mishra: "UnICORNN: A recurrent model for learning very long time dependencies", 2021,
    arXiv 2103.05487. See the cell for equations and weights, and `CellLayer` for shapes.
    """

    cell_class = UnICORNNCell
