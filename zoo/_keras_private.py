"""The private Keras names that the zoo needs, and why each has no public twin.

`DropoutRNNCell`: `keras.layers.RNN` draws one dropout mask per sequence, and clears it
    afterwards, only for cells of this class; any other cell would draw a mask per step.
`rnn`: the loop under `keras.layers.RNN`. The layer always hands it `cell.call`; a layer that
    projects the whole sequence before the loop has to hand it the recurrent part alone. As of
    Keras 3.16 it is a function of the backend's module `rnn`.
"""

from keras.src import backend
from keras.src.layers.rnn.dropout_rnn_cell import DropoutRNNCell

rnn = backend.rnn if callable(backend.rnn) else backend.rnn.rnn

__all__ = ["DropoutRNNCell", "rnn"]
