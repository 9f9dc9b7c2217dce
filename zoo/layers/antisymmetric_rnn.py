"""AntisymmetricRNN."""

import keras

from gradkeeper.zoo.cells.antisymmetric_rnn import AntisymmetricRNNCell
from gradkeeper.zoo.layers.cell_layer import CellLayer


@keras.saving.register_keras_serializable(package="gradkeeper")
class AntisymmetricRNN(CellLayer):
    """`AntisymmetricRNNCell` as a layer, with the arguments of `keras.layers.SimpleRNN`.

    Chang, Chen, Haber, Chi: "AntisymmetricRNN: A Dynamical System View on Recurrent Neural
    Networks", 2019, arXiv 1902.09689. See the cell for equations and weights, and `CellLayer` for
    shapes.
    """

    cell_class = AntisymmetricRNNCell
