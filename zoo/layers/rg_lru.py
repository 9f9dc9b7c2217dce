"""RGLRU."""

import keras

from gradkeeper.zoo.cells.rg_lru import RGLRUCell
from gradkeeper.zoo.layers.scan_layer import ScanLayer


@keras.saving.register_keras_serializable(package="gradkeeper")
class RGLRU(ScanLayer):
    """`RGLRUCell` as a layer that finds all states of a sequence in parallel.

    De et al.: "Griffin", 2024, arXiv 2402.19427. The cell's docstring has the equations and weights, `CellLayer` the shapes.
    """

    cell_class = RGLRUCell
