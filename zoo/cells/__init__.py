"""Recurrent cells, for `keras.layers.RNN`; each is also a layer in `gradkeeper.zoo.layers`."""

from typing import TYPE_CHECKING

import lazy_loader

if TYPE_CHECKING:
    from gradkeeper.zoo.cells.gated_cell import ForgetGateCell as ForgetGateCell
    from gradkeeper.zoo.cells.gated_cell import GatedCell as GatedCell
    from gradkeeper.zoo.cells.layer_norm_gru import LayerNormGRUCell as LayerNormGRUCell
    from gradkeeper.zoo.cells.layer_norm_lstm import LayerNormLSTMCell as LayerNormLSTMCell
    from gradkeeper.zoo.cells.layer_norm_simple_rnn import (
        LayerNormSimpleRNNCell as LayerNormSimpleRNNCell,
    )
    from gradkeeper.zoo.cells.mgu import MGUCell as MGUCell
    from gradkeeper.zoo.cells.recurrent_cell import RecurrentCell as RecurrentCell

__getattr__, __dir__, __all__ = lazy_loader.attach(
    __name__,
    submod_attrs={
        "gated_cell": ["ForgetGateCell", "GatedCell"],
        "layer_norm_gru": ["LayerNormGRUCell"],
        "layer_norm_lstm": ["LayerNormLSTMCell"],
        "layer_norm_simple_rnn": ["LayerNormSimpleRNNCell"],
        "mgu": ["MGUCell"],
        "recurrent_cell": ["RecurrentCell"],
    },
)
