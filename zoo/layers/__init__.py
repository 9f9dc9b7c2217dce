"""Layers: every cell of the zoo as a layer, attention, pooling."""

from typing import TYPE_CHECKING

import lazy_loader

if TYPE_CHECKING:
    from gradkeeper.zoo.layers.bahdanau_attention import BahdanauAttention as BahdanauAttention
    from gradkeeper.zoo.layers.cell_layer import CellLayer as CellLayer
    from gradkeeper.zoo.layers.layer_norm_gru import LayerNormGRU as LayerNormGRU
    from gradkeeper.zoo.layers.layer_norm_lstm import LayerNormLSTM as LayerNormLSTM
    from gradkeeper.zoo.layers.layer_norm_simple_rnn import (
        LayerNormSimpleRNN as LayerNormSimpleRNN,
    )
    from gradkeeper.zoo.layers.luong_attention import LuongAttention as LuongAttention
    from gradkeeper.zoo.layers.mgu import MGU as MGU
    from gradkeeper.zoo.layers.sequence_attention import SequenceAttention as SequenceAttention
    from gradkeeper.zoo.layers.sequence_pooling import SequencePooling as SequencePooling

__getattr__, __dir__, __all__ = lazy_loader.attach(
    __name__,
    submod_attrs={
        "bahdanau_attention": ["BahdanauAttention"],
        "cell_layer": ["CellLayer"],
        "layer_norm_gru": ["LayerNormGRU"],
        "layer_norm_lstm": ["LayerNormLSTM"],
        "layer_norm_simple_rnn": ["LayerNormSimpleRNN"],
        "luong_attention": ["LuongAttention"],
        "mgu": ["MGU"],
        "sequence_attention": ["SequenceAttention"],
        "sequence_pooling": ["SequencePooling"],
    },
)
