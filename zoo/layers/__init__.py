"""Layers: the cells of the zoo as layers, attention and pooling."""

from gradkeeper.zoo.layers.antisymmetric_rnn import AntisymmetricRNN
from gradkeeper.zoo.layers.atr import ATR
from gradkeeper.zoo.layers.bahdanau_attention import BahdanauAttention
from gradkeeper.zoo.layers.cell_layer import CellLayer
from gradkeeper.zoo.layers.cfn import CFN
from gradkeeper.zoo.layers.co_rnn import CoRNN
from gradkeeper.zoo.layers.coupled_lstm import CoupledLSTM
from gradkeeper.zoo.layers.fast_grnn import FastGRNN
from gradkeeper.zoo.layers.fast_rnn import FastRNN
from gradkeeper.zoo.layers.gated_antisymmetric_rnn import GatedAntisymmetricRNN
from gradkeeper.zoo.layers.ind_rnn import IndRNN
from gradkeeper.zoo.layers.janet import JANET
from gradkeeper.zoo.layers.layer_norm_gru import LayerNormGRU
from gradkeeper.zoo.layers.layer_norm_lstm import LayerNormLSTM
from gradkeeper.zoo.layers.layer_norm_simple_rnn import LayerNormSimpleRNN
from gradkeeper.zoo.layers.lem import LEM
from gradkeeper.zoo.layers.li_gru import LiGRU
from gradkeeper.zoo.layers.lipschitz_rnn import LipschitzRNN
from gradkeeper.zoo.layers.lru import LRU
from gradkeeper.zoo.layers.luong_attention import LuongAttention
from gradkeeper.zoo.layers.mgu import MGU
from gradkeeper.zoo.layers.min_gru import MinGRU
from gradkeeper.zoo.layers.min_lstm import MinLSTM
from gradkeeper.zoo.layers.minimal_rnn import MinimalRNN
from gradkeeper.zoo.layers.multiplicative_lstm import MultiplicativeLSTM
from gradkeeper.zoo.layers.original_lstm import OriginalLSTM
from gradkeeper.zoo.layers.orthogonal_rnn import OrthogonalRNN
from gradkeeper.zoo.layers.peephole_lstm import PeepholeLSTM
from gradkeeper.zoo.layers.ran import RAN
from gradkeeper.zoo.layers.rg_lru import RGLRU
from gradkeeper.zoo.layers.rhn import RHN
from gradkeeper.zoo.layers.s_lstm import SLSTM
from gradkeeper.zoo.layers.sequence_attention import SequenceAttention
from gradkeeper.zoo.layers.sequence_pooling import SequencePooling
from gradkeeper.zoo.layers.star import STAR
from gradkeeper.zoo.layers.ugrnn import UGRNN
from gradkeeper.zoo.layers.unicornn import UnICORNN
from gradkeeper.zoo.layers.zoneout_gru import ZoneoutGRU
from gradkeeper.zoo.layers.zoneout_lstm import ZoneoutLSTM

__all__ = [
    "ATR",
    "CFN",
    "JANET",
    "LEM",
    "LRU",
    "MGU",
    "RAN",
    "RGLRU",
    "RHN",
    "SLSTM",
    "STAR",
    "UGRNN",
    "AntisymmetricRNN",
    "BahdanauAttention",
    "CellLayer",
    "CoRNN",
    "CoupledLSTM",
    "FastGRNN",
    "FastRNN",
    "GatedAntisymmetricRNN",
    "IndRNN",
    "LayerNormGRU",
    "LayerNormLSTM",
    "LayerNormSimpleRNN",
    "LiGRU",
    "LipschitzRNN",
    "LuongAttention",
    "MinGRU",
    "MinLSTM",
    "MinimalRNN",
    "MultiplicativeLSTM",
    "OriginalLSTM",
    "OrthogonalRNN",
    "PeepholeLSTM",
    "SequenceAttention",
    "SequencePooling",
    "UnICORNN",
    "ZoneoutGRU",
    "ZoneoutLSTM",
]
