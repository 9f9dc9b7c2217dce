"""Recurrent cells for `keras.layers.RNN`. `gradkeeper.zoo.layers` has the corresponding layers."""

from gradkeeper.zoo.cells.antisymmetric_rnn import AntisymmetricRNNCell
from gradkeeper.zoo.cells.atr import ATRCell
from gradkeeper.zoo.cells.cfn import CFNCell
from gradkeeper.zoo.cells.co_rnn import CoRNNCell
from gradkeeper.zoo.cells.coupled_lstm import CoupledLSTMCell
from gradkeeper.zoo.cells.fast_grnn import FastGRNNCell
from gradkeeper.zoo.cells.fast_rnn import FastRNNCell
from gradkeeper.zoo.cells.gated_antisymmetric_rnn import GatedAntisymmetricRNNCell
from gradkeeper.zoo.cells.gated_cell import ForgetGateCell, GatedCell
from gradkeeper.zoo.cells.ind_rnn import IndRNNCell
from gradkeeper.zoo.cells.janet import JANETCell
from gradkeeper.zoo.cells.layer_norm_gru import LayerNormGRUCell
from gradkeeper.zoo.cells.layer_norm_lstm import LayerNormLSTMCell
from gradkeeper.zoo.cells.layer_norm_simple_rnn import LayerNormSimpleRNNCell
from gradkeeper.zoo.cells.lem import LEMCell
from gradkeeper.zoo.cells.li_gru import LiGRUCell
from gradkeeper.zoo.cells.linear_cell import LinearCell
from gradkeeper.zoo.cells.lipschitz_rnn import LipschitzRNNCell
from gradkeeper.zoo.cells.lru import LRUCell
from gradkeeper.zoo.cells.mgu import MGUCell
from gradkeeper.zoo.cells.min_gru import MinGRUCell
from gradkeeper.zoo.cells.min_lstm import MinLSTMCell
from gradkeeper.zoo.cells.minimal_rnn import MinimalRNNCell
from gradkeeper.zoo.cells.multiplicative_lstm import MultiplicativeLSTMCell
from gradkeeper.zoo.cells.original_lstm import OriginalLSTMCell
from gradkeeper.zoo.cells.orthogonal_rnn import OrthogonalRNNCell
from gradkeeper.zoo.cells.peephole_lstm import PeepholeLSTMCell
from gradkeeper.zoo.cells.ran import RANCell
from gradkeeper.zoo.cells.recurrent_cell import RecurrentCell
from gradkeeper.zoo.cells.rg_lru import RGLRUCell
from gradkeeper.zoo.cells.rhn import RHNCell
from gradkeeper.zoo.cells.s_lstm import SLSTMCell
from gradkeeper.zoo.cells.star import STARCell
from gradkeeper.zoo.cells.ugrnn import UGRNNCell
from gradkeeper.zoo.cells.unicornn import UnICORNNCell
from gradkeeper.zoo.cells.zoneout_gru import ZoneoutGRUCell
from gradkeeper.zoo.cells.zoneout_lstm import ZoneoutLSTMCell

__all__ = [
    "ATRCell",
    "AntisymmetricRNNCell",
    "CFNCell",
    "CoRNNCell",
    "CoupledLSTMCell",
    "FastGRNNCell",
    "FastRNNCell",
    "ForgetGateCell",
    "GatedAntisymmetricRNNCell",
    "GatedCell",
    "IndRNNCell",
    "JANETCell",
    "LEMCell",
    "LRUCell",
    "LayerNormGRUCell",
    "LayerNormLSTMCell",
    "LayerNormSimpleRNNCell",
    "LiGRUCell",
    "LinearCell",
    "LipschitzRNNCell",
    "MGUCell",
    "MinGRUCell",
    "MinLSTMCell",
    "MinimalRNNCell",
    "MultiplicativeLSTMCell",
    "OriginalLSTMCell",
    "OrthogonalRNNCell",
    "PeepholeLSTMCell",
    "RANCell",
    "RGLRUCell",
    "RHNCell",
    "RecurrentCell",
    "SLSTMCell",
    "STARCell",
    "UGRNNCell",
    "UnICORNNCell",
    "ZoneoutGRUCell",
    "ZoneoutLSTMCell",
]
