"""Keras initializers for recurrent matrices."""

from collections.abc import Sequence
from math import pi

import keras
from keras import ops

from gradkeeper.zoo._typing import Config, Tensor


@keras.saving.register_keras_serializable(package="gradkeeper")
class NormalizedPositiveDefinite(keras.initializers.Initializer):
    """Initializer of a symmetric positive definite matrix with largest eigenvalue 1.

    Talathi, Vartak: "Improving performance of recurrent neural network with relu nonlinearity",
    2015, arXiv 1511.03771, with R standard normal, [n, n]::

        A = R^T R / n,  W = (A + I) / e,  e the largest eigenvalue of A + I

    W keeps the length of vectors in one direction and shrinks them in all others.

    Args:
        seed: seed of R.
    """

    def __init__(self, seed: int | None = None) -> None:
        self.seed = seed

    def __call__(self, shape: Sequence[int], dtype: str | None = None) -> Tensor:
        rows, columns = shape
        if rows != columns:
            raise ValueError(f"The matrix must be square. Received: shape={tuple(shape)}")
        r = keras.random.normal((rows, rows), seed=self.seed)
        a = ops.matmul(ops.transpose(r), r) / rows + ops.eye(rows)
        return ops.cast(a / ops.max(ops.eigh(a)[0]), dtype or keras.config.floatx())

    def get_config(self) -> Config:
        return {"seed": self.seed}


@keras.saving.register_keras_serializable(package="gradkeeper")
class SkewAngles(keras.initializers.Initializer):
    """Initializer of a strictly upper triangular U such that exp(U - U^T) rotates pairs of units.

    Henaff, Szlam, LeCun: "Recurrent Orthogonal Networks and Long-Memory Tasks", 2016, arXiv
    1602.06662, as used by Lezcano-Casado, Martinez-Rubio 2019: the angles of the rotations are
    uniform in [-pi, pi].

    Args:
        seed: seed of the angles.
    """

    def __init__(self, seed: int | None = None) -> None:
        self.seed = seed

    def __call__(self, shape: Sequence[int], dtype: str | None = None) -> Tensor:
        rows, _ = shape
        angles = keras.random.uniform((rows,), -pi, pi, seed=self.seed)
        first_of_pair = ops.cast(ops.arange(rows) % 2 == 0, angles.dtype)
        beside = ops.eye(rows, k=1) * ops.expand_dims(angles * first_of_pair, -1)
        return ops.cast(beside, dtype or keras.config.floatx())

    def get_config(self) -> Config:
        return {"seed": self.seed}
