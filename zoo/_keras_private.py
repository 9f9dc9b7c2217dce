"""Private Keras names that the zoo uses. Neither has a public equivalent.

`DropoutRNNCell`: base class of cells for which `keras.layers.RNN` draws one dropout mask per
    sequence and clears it afterwards. Other cells would draw a mask per step.
`rnn`: the loop of `keras.layers.RNN`. The Keras layer always passes `cell.call` to the loop; a
    layer that projects the whole sequence before the loop must pass only the recurrent part. As
    of Keras 3.16, `rnn` is a function in the backend's module `rnn`.
"""

from keras.src import backend
from keras.src.layers.rnn.dropout_rnn_cell import DropoutRNNCell

rnn = backend.rnn if callable(backend.rnn) else backend.rnn.rnn

__all__ = ["DropoutRNNCell", "rnn"]
