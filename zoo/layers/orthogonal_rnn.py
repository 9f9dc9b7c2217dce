"""OrthogonalRNN."""

import keras

from gradkeeper.zoo.cells.orthogonal_rnn import OrthogonalRNNCell
from gradkeeper.zoo.layers.cell_layer import CellLayer


@keras.saving.register_keras_serializable(package="gradkeeper")
class OrthogonalRNN(CellLayer):
    """`OrthogonalRNNCell` as a layer, with the arguments of `keras.layers.SimpleRNN`.

    Lezcano-Casado, Martinez-Rubio: "Cheap Orthogonal Constraints in Neural Networks", 2019, arXiv
    1901.08428. See the cell for equations and weights, and `CellLayer` for shapes.
    """

    cell_class = OrthogonalRNNCell
