"""ZoneoutGRU."""

import keras

from gradkeeper.zoo.cells.zoneout_gru import ZoneoutGRUCell
from gradkeeper.zoo.layers.cell_layer import CellLayer


@keras.saving.register_keras_serializable(package="gradkeeper")
class ZoneoutGRU(CellLayer):
    """`ZoneoutGRUCell` as a layer, with the arguments of `keras.layers.GRU`.

    Krueger et al.: "Zoneout", 2017, arXiv 1606.01305. See the cell for equations and weights, and
    `CellLayer` for shapes.
    """

    cell_class = ZoneoutGRUCell
