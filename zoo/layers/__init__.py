"""Layers: the cells of the zoo as layers, attention and pooling."""

from gradkeeper.zoo.cells.antisymmetric_rnn import AntisymmetricRNN as AntisymmetricRNN
from gradkeeper.zoo.cells.atr import ATR as ATR
from gradkeeper.zoo.cells.cell_layer import CellLayer as CellLayer
from gradkeeper.zoo.cells.cfn import CFN as CFN
from gradkeeper.zoo.cells.co_rnn import CoRNN as CoRNN
from gradkeeper.zoo.cells.coupled_lstm import CoupledLSTM as CoupledLSTM
from gradkeeper.zoo.cells.fast_grnn import FastGRNN as FastGRNN
from gradkeeper.zoo.cells.fast_rnn import FastRNN as FastRNN
from gradkeeper.zoo.cells.gated_antisymmetric_rnn import (
    GatedAntisymmetricRNN as GatedAntisymmetricRNN,
)
from gradkeeper.zoo.cells.ind_rnn import IndRNN as IndRNN
from gradkeeper.zoo.cells.janet import JANET as JANET
from gradkeeper.zoo.cells.layer_norm_gru import LayerNormGRU as LayerNormGRU
from gradkeeper.zoo.cells.layer_norm_lstm import LayerNormLSTM as LayerNormLSTM
from gradkeeper.zoo.cells.layer_norm_simple_rnn import LayerNormSimpleRNN as LayerNormSimpleRNN
from gradkeeper.zoo.cells.lem import LEM as LEM
from gradkeeper.zoo.cells.li_gru import LiGRU as LiGRU
from gradkeeper.zoo.cells.lipschitz_rnn import LipschitzRNN as LipschitzRNN
from gradkeeper.zoo.cells.lru import LRU as LRU
from gradkeeper.zoo.cells.mgu import MGU as MGU
from gradkeeper.zoo.cells.min_gru import MinGRU as MinGRU
from gradkeeper.zoo.cells.min_lstm import MinLSTM as MinLSTM
from gradkeeper.zoo.cells.minimal_rnn import MinimalRNN as MinimalRNN
from gradkeeper.zoo.cells.multiplicative_lstm import MultiplicativeLSTM as MultiplicativeLSTM
from gradkeeper.zoo.cells.original_lstm import OriginalLSTM as OriginalLSTM
from gradkeeper.zoo.cells.orthogonal_rnn import OrthogonalRNN as OrthogonalRNN
from gradkeeper.zoo.cells.peephole_lstm import PeepholeLSTM as PeepholeLSTM
from gradkeeper.zoo.cells.ran import RAN as RAN
from gradkeeper.zoo.cells.rg_lru import RGLRU as RGLRU
from gradkeeper.zoo.cells.rhn import RHN as RHN
from gradkeeper.zoo.cells.s_lstm import SLSTM as SLSTM
from gradkeeper.zoo.cells.star import STAR as STAR
from gradkeeper.zoo.cells.ugrnn import UGRNN as UGRNN
from gradkeeper.zoo.cells.unicornn import UnICORNN as UnICORNN
from gradkeeper.zoo.cells.zoneout_gru import ZoneoutGRU as ZoneoutGRU
from gradkeeper.zoo.cells.zoneout_lstm import ZoneoutLSTM as ZoneoutLSTM
from gradkeeper.zoo.layers.attention import BahdanauAttention as BahdanauAttention
from gradkeeper.zoo.layers.attention import LuongAttention as LuongAttention
from gradkeeper.zoo.layers.attention import SequenceAttention as SequenceAttention
from gradkeeper.zoo.layers.sequence_pooling import SequencePooling as SequencePooling

__all__ = [name for name in sorted(globals()) if isinstance(globals()[name], type)]
