"""Recurrent cells for `keras.layers.RNN`. `gradkeeper.zoo.layers` has the corresponding layers."""

from gradkeeper.zoo.cells.antisymmetric_rnn import AntisymmetricRNNCell as AntisymmetricRNNCell
from gradkeeper.zoo.cells.atr import ATRCell as ATRCell
from gradkeeper.zoo.cells.cfn import CFNCell as CFNCell
from gradkeeper.zoo.cells.co_rnn import CoRNNCell as CoRNNCell
from gradkeeper.zoo.cells.coupled_lstm import CoupledLSTMCell as CoupledLSTMCell
from gradkeeper.zoo.cells.fast_grnn import FastGRNNCell as FastGRNNCell
from gradkeeper.zoo.cells.fast_rnn import FastRNNCell as FastRNNCell
from gradkeeper.zoo.cells.gated_antisymmetric_rnn import (
    GatedAntisymmetricRNNCell as GatedAntisymmetricRNNCell,
)
from gradkeeper.zoo.cells.gated_cell import ChronoCell as ChronoCell
from gradkeeper.zoo.cells.gated_cell import ForgetGateCell as ForgetGateCell
from gradkeeper.zoo.cells.gated_cell import GatedCell as GatedCell
from gradkeeper.zoo.cells.ind_rnn import IndRNNCell as IndRNNCell
from gradkeeper.zoo.cells.janet import JANETCell as JANETCell
from gradkeeper.zoo.cells.layer_norm_gru import LayerNormGRUCell as LayerNormGRUCell
from gradkeeper.zoo.cells.layer_norm_lstm import LayerNormLSTMCell as LayerNormLSTMCell
from gradkeeper.zoo.cells.layer_norm_simple_rnn import (
    LayerNormSimpleRNNCell as LayerNormSimpleRNNCell,
)
from gradkeeper.zoo.cells.lem import LEMCell as LEMCell
from gradkeeper.zoo.cells.li_gru import LiGRUCell as LiGRUCell
from gradkeeper.zoo.cells.linear_cell import LinearCell as LinearCell
from gradkeeper.zoo.cells.lipschitz_rnn import LipschitzRNNCell as LipschitzRNNCell
from gradkeeper.zoo.cells.lru import LRUCell as LRUCell
from gradkeeper.zoo.cells.mgu import MGUCell as MGUCell
from gradkeeper.zoo.cells.min_gru import MinGRUCell as MinGRUCell
from gradkeeper.zoo.cells.min_lstm import MinLSTMCell as MinLSTMCell
from gradkeeper.zoo.cells.minimal_rnn import MinimalRNNCell as MinimalRNNCell
from gradkeeper.zoo.cells.multiplicative_lstm import (
    MultiplicativeLSTMCell as MultiplicativeLSTMCell,
)
from gradkeeper.zoo.cells.original_lstm import OriginalLSTMCell as OriginalLSTMCell
from gradkeeper.zoo.cells.orthogonal_rnn import OrthogonalRNNCell as OrthogonalRNNCell
from gradkeeper.zoo.cells.peephole_lstm import PeepholeLSTMCell as PeepholeLSTMCell
from gradkeeper.zoo.cells.ran import RANCell as RANCell
from gradkeeper.zoo.cells.recurrent_cell import RecurrentCell as RecurrentCell
from gradkeeper.zoo.cells.rg_lru import RGLRUCell as RGLRUCell
from gradkeeper.zoo.cells.rhn import RHNCell as RHNCell
from gradkeeper.zoo.cells.s_lstm import SLSTMCell as SLSTMCell
from gradkeeper.zoo.cells.star import STARCell as STARCell
from gradkeeper.zoo.cells.ugrnn import UGRNNCell as UGRNNCell
from gradkeeper.zoo.cells.unicornn import UnICORNNCell as UnICORNNCell
from gradkeeper.zoo.cells.zoneout_gru import ZoneoutGRUCell as ZoneoutGRUCell
from gradkeeper.zoo.cells.zoneout_lstm import ZoneoutLSTMCell as ZoneoutLSTMCell

__all__ = [name for name in sorted(globals()) if isinstance(globals()[name], type)]
