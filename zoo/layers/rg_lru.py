"""RGLRU."""

import keras

from gradkeeper.zoo.cells.rg_lru import RGLRUCell
from gradkeeper.zoo.layers.scan_layer import ScanLayer


@keras.saving.register_keras_serializable(package="gradkeeper")
class RGLRU(ScanLayer):
    """`RGLRUCell` as a layer that computes all states of a sequence in parallel.

    De et al.: "Griffin", 2024, arXiv 2402.19427. See the cell for equations and weights, and
    `CellLayer` for shapes.
    """

    cell_class = RGLRUCell
