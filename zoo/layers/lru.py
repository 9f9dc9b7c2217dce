"""LRU."""

import keras

from gradkeeper.zoo.cells.lru import LRUCell
from gradkeeper.zoo.layers.scan_layer import ScanLayer


@keras.saving.register_keras_serializable(package="gradkeeper")
class LRU(ScanLayer):
    """`LRUCell` as a layer that computes all states of a sequence in parallel.

    Orvieto et al.: "Resurrecting Recurrent Neural Networks for Long Sequences", 2023, arXiv
    2303.06349. See the cell for equations and weights, and `CellLayer` for shapes.
    """

    cell_class = LRUCell
