"""Keras initializers for recurrent matrices and for the biases of gates."""

from collections.abc import Sequence
from math import pi

import keras
from keras import ops

from gradkeeper._arguments import number
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


@keras.saving.register_keras_serializable(package="gradkeeper")
class Chrono(keras.initializers.Initializer):
    """Initializer of the biases of gates, for dependencies over at most `steps` time steps.

    Tallec, Ollivier: "Can recurrent neural networks warp time?", 2018, arXiv 1804.11188. The last
    axis has one block of units for each element of `signs`. With u uniform in [1, steps - 1], drawn
    once for each unit::

        block k = signs[k] * log(u)

    A forget gate with the sum log(u) is u / (1 + u), so that the unit's memory decays with a time
    constant of 1 + u steps, between 2 and `steps`.

    - `keras.layers.LSTM(units, bias_initializer=Chrono(steps), unit_forget_bias=False)` has the
      blocks i, f, c, o of the default signs. With `unit_forget_bias=True`, the default of Keras,
      Keras calls the initializer for parts of the bias, and the values are wrong.
    - `keras.layers.GRU(units, bias_initializer=Chrono(steps, signs=(1, 0, 0)))` has the blocks
      z, r, h, and z keeps the state. Of its bias [2, 3 * units], the row of the inputs is
      initialized; the row of the state is 0.
    - For the cells of the zoo that have a forget gate, use their option `chrono_steps`.

    Args:
        steps: length of the longest dependency, at least 3.
        signs: 1 for a forget gate, -1 for an input gate, 0 for a bias that starts at 0.
        seed: seed of u.

    Raises:
        ValueError: if an argument is not allowed, or if the last axis of the shape is not a
            multiple of the number of signs.
    """

    def __init__(
        self, steps: float, signs: Sequence[int] = (-1, 1, 0, 0), seed: int | None = None
    ) -> None:
        self.steps = number("steps", steps, "[3, inf)")
        self.signs = tuple(signs)
        if not self.signs or not set(self.signs) <= {-1, 0, 1}:
            raise ValueError(f"`signs` must be one or more of -1, 0, 1. Received: signs={signs!r}")
        self.seed = seed

    def __call__(self, shape: Sequence[int], dtype: str | None = None) -> Tensor:
        units, rest = divmod(shape[-1], len(self.signs))
        if rest:
            raise ValueError(
                f"The last axis must be a multiple of {len(self.signs)}, the number of `signs`. "
                f"Received: shape={tuple(shape)}"
            )
        u = keras.random.uniform((units,), 1, self.steps - 1, dtype=dtype, seed=self.seed)
        row = ops.concatenate([sign * ops.log(u) for sign in self.signs])
        if len(shape) == 1:
            return row
        return ops.pad(ops.expand_dims(row, 0), [(0, shape[0] - 1), (0, 0)])

    def get_config(self) -> Config:
        return {"steps": self.steps, "signs": self.signs, "seed": self.seed}
