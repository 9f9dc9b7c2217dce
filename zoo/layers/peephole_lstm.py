"""PeepholeLSTM."""

import keras

from gradkeeper.zoo.cells.peephole_lstm import PeepholeLSTMCell
from gradkeeper.zoo.layers.cell_layer import CellLayer


@keras.saving.register_keras_serializable(package="gradkeeper")
class PeepholeLSTM(CellLayer):
    """`PeepholeLSTMCell` as a layer, with the arguments of `keras.layers.LSTM`.

    Gers, Schraudolph, Schmidhuber: "Learning Precise Timing with LSTM Recurrent Networks", Journal
    of Machine Learning Research 3, 2002. See the cell for equations and weights, and `CellLayer`
    for shapes.
    """

    cell_class = PeepholeLSTMCell
