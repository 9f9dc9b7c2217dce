"""Layers: the cells of the zoo as layers, attention and pooling."""

from gradkeeper.zoo.cells.antisymmetric_rnn import AntisymmetricRNN
from gradkeeper.zoo.cells.atr import ATR
from gradkeeper.zoo.cells.cell_layer import CellLayer
from gradkeeper.zoo.cells.cfn import CFN
from gradkeeper.zoo.cells.co_rnn import CoRNN
from gradkeeper.zoo.cells.coupled_lstm import CoupledLSTM
from gradkeeper.zoo.cells.fast_grnn import FastGRNN
from gradkeeper.zoo.cells.fast_rnn import FastRNN
from gradkeeper.zoo.cells.gated_antisymmetric_rnn import GatedAntisymmetricRNN
from gradkeeper.zoo.cells.ind_rnn import IndRNN
from gradkeeper.zoo.cells.janet import JANET
from gradkeeper.zoo.cells.layer_norm_gru import LayerNormGRU
from gradkeeper.zoo.cells.layer_norm_lstm import LayerNormLSTM
from gradkeeper.zoo.cells.layer_norm_simple_rnn import LayerNormSimpleRNN
from gradkeeper.zoo.cells.lem import LEM
from gradkeeper.zoo.cells.li_gru import LiGRU
from gradkeeper.zoo.cells.lipschitz_rnn import LipschitzRNN
from gradkeeper.zoo.cells.lru import LRU
from gradkeeper.zoo.cells.mgu import MGU
from gradkeeper.zoo.cells.min_gru import MinGRU
from gradkeeper.zoo.cells.min_lstm import MinLSTM
from gradkeeper.zoo.cells.minimal_rnn import MinimalRNN
from gradkeeper.zoo.cells.multiplicative_lstm import MultiplicativeLSTM
from gradkeeper.zoo.cells.original_lstm import OriginalLSTM
from gradkeeper.zoo.cells.orthogonal_rnn import OrthogonalRNN
from gradkeeper.zoo.cells.peephole_lstm import PeepholeLSTM
from gradkeeper.zoo.cells.ran import RAN
from gradkeeper.zoo.cells.rg_lru import RGLRU
from gradkeeper.zoo.cells.rhn import RHN
from gradkeeper.zoo.cells.s_lstm import SLSTM
from gradkeeper.zoo.cells.star import STAR
from gradkeeper.zoo.cells.ugrnn import UGRNN
from gradkeeper.zoo.cells.unicornn import UnICORNN
from gradkeeper.zoo.cells.zoneout_gru import ZoneoutGRU
from gradkeeper.zoo.cells.zoneout_lstm import ZoneoutLSTM
from gradkeeper.zoo.layers.attention import BahdanauAttention, LuongAttention, SequenceAttention
from gradkeeper.zoo.layers.sequence_pooling import SequencePooling

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
