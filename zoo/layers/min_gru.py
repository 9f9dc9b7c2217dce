"""MinGRU."""

import keras

from gradkeeper.zoo.cells.min_gru import MinGRUCell
from gradkeeper.zoo.layers.scan_layer import ScanLayer


@keras.saving.register_keras_serializable(package="gradkeeper")
class MinGRU(ScanLayer):
    """`MinGRUCell` as a layer that computes all states of a sequence in parallel.

    Feng, Tung, Ahmed, Bengio, Hajimirsadeghi: "Were RNNs All We Needed?", 2024, arXiv 2410.01201.
    See the cell for equations and weights, and `CellLayer` for shapes.
    """

    cell_class = MinGRUCell
