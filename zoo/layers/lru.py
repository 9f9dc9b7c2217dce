"""LRU."""

import keras

from gradkeeper.zoo.cells.lru import LRUCell
from gradkeeper.zoo.layers.scan_layer import ScanLayer


@keras.saving.register_keras_serializable(package="gradkeeper")
class LRU(ScanLayer):
    """`LRUCell` as a layer that finds all states of a sequence in parallel.

    Orvieto et al.: "Resurrecting Recurrent Neural Networks for Long Sequences", 2023, arXiv
    2303.06349. The cell's docstring has the equations and weights, `CellLayer` the shapes.
    """

    cell_class = LRUCell
