"""Layers: every cell of the zoo as a layer, attention, pooling."""

from typing import TYPE_CHECKING

import lazy_loader

if TYPE_CHECKING:
    from gradkeeper.zoo.layers.antisymmetric_rnn import AntisymmetricRNN as AntisymmetricRNN
    from gradkeeper.zoo.layers.atr import ATR as ATR
    from gradkeeper.zoo.layers.bahdanau_attention import BahdanauAttention as BahdanauAttention
    from gradkeeper.zoo.layers.cell_layer import CellLayer as CellLayer
    from gradkeeper.zoo.layers.cfn import CFN as CFN
    from gradkeeper.zoo.layers.co_rnn import CoRNN as CoRNN
    from gradkeeper.zoo.layers.coupled_lstm import CoupledLSTM as CoupledLSTM
    from gradkeeper.zoo.layers.fast_grnn import FastGRNN as FastGRNN
    from gradkeeper.zoo.layers.fast_rnn import FastRNN as FastRNN
    from gradkeeper.zoo.layers.gated_antisymmetric_rnn import (
        GatedAntisymmetricRNN as GatedAntisymmetricRNN,
    )
    from gradkeeper.zoo.layers.ind_rnn import IndRNN as IndRNN
    from gradkeeper.zoo.layers.janet import JANET as JANET
    from gradkeeper.zoo.layers.layer_norm_gru import LayerNormGRU as LayerNormGRU
    from gradkeeper.zoo.layers.layer_norm_lstm import LayerNormLSTM as LayerNormLSTM
    from gradkeeper.zoo.layers.layer_norm_simple_rnn import (
        LayerNormSimpleRNN as LayerNormSimpleRNN,
    )
    from gradkeeper.zoo.layers.lem import LEM as LEM
    from gradkeeper.zoo.layers.li_gru import LiGRU as LiGRU
    from gradkeeper.zoo.layers.lipschitz_rnn import LipschitzRNN as LipschitzRNN
    from gradkeeper.zoo.layers.lru import LRU as LRU
    from gradkeeper.zoo.layers.luong_attention import LuongAttention as LuongAttention
    from gradkeeper.zoo.layers.mgu import MGU as MGU
    from gradkeeper.zoo.layers.min_gru import MinGRU as MinGRU
    from gradkeeper.zoo.layers.min_lstm import MinLSTM as MinLSTM
    from gradkeeper.zoo.layers.minimal_rnn import MinimalRNN as MinimalRNN
    from gradkeeper.zoo.layers.multiplicative_lstm import MultiplicativeLSTM as MultiplicativeLSTM
    from gradkeeper.zoo.layers.original_lstm import OriginalLSTM as OriginalLSTM
    from gradkeeper.zoo.layers.orthogonal_rnn import OrthogonalRNN as OrthogonalRNN
    from gradkeeper.zoo.layers.peephole_lstm import PeepholeLSTM as PeepholeLSTM
    from gradkeeper.zoo.layers.ran import RAN as RAN
    from gradkeeper.zoo.layers.rg_lru import RGLRU as RGLRU
    from gradkeeper.zoo.layers.rhn import RHN as RHN
    from gradkeeper.zoo.layers.s_lstm import SLSTM as SLSTM
    from gradkeeper.zoo.layers.sequence_attention import SequenceAttention as SequenceAttention
    from gradkeeper.zoo.layers.sequence_pooling import SequencePooling as SequencePooling
    from gradkeeper.zoo.layers.star import STAR as STAR
    from gradkeeper.zoo.layers.ugrnn import UGRNN as UGRNN
    from gradkeeper.zoo.layers.unicornn import UnICORNN as UnICORNN
    from gradkeeper.zoo.layers.zoneout_gru import ZoneoutGRU as ZoneoutGRU
    from gradkeeper.zoo.layers.zoneout_lstm import ZoneoutLSTM as ZoneoutLSTM

__getattr__, __dir__, __all__ = lazy_loader.attach(
    __name__,
    submod_attrs={
        "antisymmetric_rnn": ["AntisymmetricRNN"],
        "atr": ["ATR"],
        "bahdanau_attention": ["BahdanauAttention"],
        "cell_layer": ["CellLayer"],
        "cfn": ["CFN"],
        "co_rnn": ["CoRNN"],
        "coupled_lstm": ["CoupledLSTM"],
        "fast_grnn": ["FastGRNN"],
        "fast_rnn": ["FastRNN"],
        "gated_antisymmetric_rnn": ["GatedAntisymmetricRNN"],
        "ind_rnn": ["IndRNN"],
        "janet": ["JANET"],
        "layer_norm_gru": ["LayerNormGRU"],
        "layer_norm_lstm": ["LayerNormLSTM"],
        "layer_norm_simple_rnn": ["LayerNormSimpleRNN"],
        "lem": ["LEM"],
        "li_gru": ["LiGRU"],
        "lipschitz_rnn": ["LipschitzRNN"],
        "lru": ["LRU"],
        "luong_attention": ["LuongAttention"],
        "mgu": ["MGU"],
        "min_gru": ["MinGRU"],
        "min_lstm": ["MinLSTM"],
        "minimal_rnn": ["MinimalRNN"],
        "multiplicative_lstm": ["MultiplicativeLSTM"],
        "original_lstm": ["OriginalLSTM"],
        "orthogonal_rnn": ["OrthogonalRNN"],
        "peephole_lstm": ["PeepholeLSTM"],
        "ran": ["RAN"],
        "rg_lru": ["RGLRU"],
        "rhn": ["RHN"],
        "s_lstm": ["SLSTM"],
        "sequence_attention": ["SequenceAttention"],
        "sequence_pooling": ["SequencePooling"],
        "star": ["STAR"],
        "ugrnn": ["UGRNN"],
        "unicornn": ["UnICORNN"],
        "zoneout_gru": ["ZoneoutGRU"],
        "zoneout_lstm": ["ZoneoutLSTM"],
    },
)
