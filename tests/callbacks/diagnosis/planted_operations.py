"""Singular functions, with the verdict and the remedy that a replay gives for each."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import tensorflow as tf
from keras import ops

BAD_ROW = 2
Function = Callable[[Any], Any]


@dataclass(frozen=True)
class Singular:
    """Function of the rows of a batch, singular in one row.

    Attributes:
        function: the function.
        row: numbers of the singular row; other rows contain numbers from 0.2 to 0.8.
        cause: name of the fault; None where all values are finite.
        remedied: function with the remedy applied; None where the remedy is no new value.
        place: place in the verdict.
        kind: kind of the operation, or of the operation whose gradient is bad.
        advice: part of the remedy's text.
        compiled: whether the replay treats the step as compiled by XLA.
    """

    function: Function
    row: list[float]
    cause: str | None
    remedied: Function | None = None
    place: str = "forward"
    kind: str | None = None
    advice: str = ""
    compiled: bool = False

    @property
    def x(self) -> tf.Tensor:
        x = np.random.default_rng(0).uniform(0.2, 0.8, (4, len(self.row)))
        x[BAD_ROW] = self.row
        return tf.constant(x, tf.float32)


def backward(
    function: Function, row: list[float], cause: str, remedied: Function, kind: str
) -> Singular:
    return Singular(function, row, cause, remedied, "backward", kind)


def square_matrix(x: Any) -> Any:
    return tf.reshape(x, (-1, 2, 2))


def selected(reduce: Function) -> Function:
    """Return a function that reduces the positive numbers of each row."""
    return lambda x: tf.stack([reduce(row[row > 0]) for row in tf.unstack(x)])[:, None]


def count(x: Any) -> Any:
    return tf.cast(tf.size(x), x.dtype)


def segments(x: Any) -> Any:
    """Return the maximum of each segment; segment 2 is empty."""
    numbers = tf.where(x[:, 0] > 0, tf.range(4), 3)
    return tf.math.unsorted_segment_max(x, numbers, 4)


def norm(x: Any) -> Any:
    return tf.norm(x, axis=1, keepdims=True)


def safe_norm(x: Any) -> Any:
    return tf.sqrt(tf.reduce_sum(x * x, 1, keepdims=True) + 1e-6)


def variance(x: Any) -> Any:
    return tf.math.reduce_variance(x, 1, keepdims=True)


def difference_of_moments(x: Any) -> Any:
    """Return E[x²] - E[x]², which is -3e-8 for three times 0.58."""
    return tf.reduce_mean(x * x, 1, keepdims=True) - tf.reduce_mean(x, 1, keepdims=True) ** 2


def positive(x: Any) -> Any:
    return tf.maximum(x, 1e-6)


def inside(x: Any) -> Any:
    return tf.clip_by_value(x, -1 + 1e-6, 1 - 1e-6)


def masked(x: Any, value: float = -np.inf) -> Any:
    return tf.where(x > 0, x, value)


def magnitudes(x: Any) -> Any:
    return tf.abs(tf.signal.rfft(x))


@tf.custom_gradient
def amplified(x: Any) -> Any:
    """Return a value with a large gradient for one of three numbers and 0 for the others."""
    return tf.identity(x), lambda gradient: gradient * tf.constant([0, 3e38, 0])


ONE = tf.ones_like
EYE, DIAGONAL = 1e-3 * np.eye(2, dtype="float32"), np.diag([1e-3, 2e-3]).astype("float32")

SINGULAR = {
    "xlogy": Singular(
        lambda x: tf.math.xlogy(ONE(x), x),
        [0, 0, 0],
        "logarithm of 0",
        lambda x: tf.math.xlogy(ONE(x), positive(x)),
        kind="Xlogy",
    ),
    "xlog1py": Singular(
        lambda x: tf.math.xlog1py(ONE(x), x),
        [-1, -1, -1],
        "logarithm of 0",
        lambda x: tf.math.xlog1py(ONE(x), positive(1 + x) - 1),
        kind="Xlog1py",
    ),
    "log of a negative": Singular(
        lambda x: tf.math.log(x),
        [-1, 1, 1],
        "logarithm of a negative number",
        lambda x: tf.math.log(tf.nn.softplus(x)),
        kind="Log",
    ),
    "inverse softplus": Singular(
        lambda x: tf.math.log(tf.math.expm1(x)),
        [0, 0, 0],
        "logarithm of 0",
        lambda x: tf.math.log(positive(tf.math.expm1(x))),
    ),
    "log before an fft": Singular(
        lambda x: magnitudes(tf.math.log(x)),
        [0, 0, 0, 0],
        "logarithm of 0",
        lambda x: magnitudes(tf.math.log(positive(x))),
        kind="Log",
    ),
    "mixture density": Singular(
        lambda x: -tf.math.log(tf.reduce_sum(0.5 * tf.exp(-x) / 2.0, 1, keepdims=True)),
        [200, 300],
        "logarithm of an exponential that is 0 by underflow",
        lambda x: -tf.reduce_logsumexp(np.log(0.25).astype("float32") - x, 1, keepdims=True),
        kind="Log",
        advice="logsumexp(",
    ),
    "xdivy": Singular(
        lambda x: tf.math.xdivy(ONE(x), x),
        [0, 0, 0],
        "division by 0",
        lambda x: tf.math.xdivy(ONE(x), positive(x)),
        kind="Xdivy",
    ),
    "remainder": Singular(
        lambda x: tf.math.floormod(ONE(x), x),
        [0, 0, 0],
        "division by 0",
        lambda x: tf.math.floormod(ONE(x), positive(x)),
        kind="FloorMod",
    ),
    "negative power": Singular(
        lambda x: x**-2.0,
        [0, 0, 0],
        "division by 0",
        lambda x: tf.maximum(x, 1e-3) ** -2.0,
        kind="Pow",
    ),
    "division by 2e-37": Singular(
        lambda x: 100 / x,
        [2e-37, 1, 1],
        "division by a number too small",
        lambda x: 100 / positive(x),
        kind="RealDiv",
    ),
    "temperature of 0": Singular(
        lambda x: tf.nn.softmax(x[:, 1:] / x[:, :1]),
        [0, 0, 0],
        "0 divided by 0",
        lambda x: tf.nn.softmax(x[:, 1:] / positive(x[:, :1])),
    ),
    "standardised": Singular(
        lambda x: (x - tf.reduce_mean(x, 1, keepdims=True)) / tf.sqrt(variance(x)),
        [0.5, 0.5, 0.5],
        "0 divided by 0",
        lambda x: (x - tf.reduce_mean(x, 1, keepdims=True)) / tf.sqrt(variance(x) + 1e-6),
        advice="under the root",
    ),
    "normalised": Singular(
        lambda x: (x - tf.reduce_mean(x, 1, keepdims=True)) * tf.math.rsqrt(variance(x)),
        [0.5, 0.5, 0.5],
        "division by the root of a variance of 0",
        lambda x: (x - tf.reduce_mean(x, 1, keepdims=True)) * tf.math.rsqrt(variance(x) + 1e-3),
        kind="Rsqrt",
    ),
    "infinity on purpose": Singular(
        lambda x: x * tf.where(x > 0, 1.0, np.inf),
        [0, 1, 1],
        "infinity minus infinity, or 0 times infinity",
        lambda x: x * tf.where(x > 0, 1.0, 1e9),
        kind="Mul",
    ),
    "divided by its norm": Singular(
        lambda x: x / norm(x), [0, 0, 0], "0 divided by 0", lambda x: x / safe_norm(x)
    ),
    "normalised by Keras, as advised": Singular(ops.normalize, [0, 0, 0], None, place="none"),
    "mean of a selection": Singular(
        selected(tf.reduce_mean),
        [-1, -1, -1],
        "mean of an empty tensor",
        selected(lambda row: tf.reduce_sum(row) / tf.maximum(count(row), 1.0)),
        kind="Mean",
    ),
    "maximum of a selection": Singular(
        selected(tf.reduce_max),
        [-1, -1, -1],
        "maximum or minimum of an empty tensor",
        selected(lambda row: tf.where(count(row) > 0, tf.reduce_max(row), 0.0)),
        kind="Max",
    ),
    "minimum of a selection": Singular(
        selected(tf.reduce_min), [-1, -1, -1], "maximum or minimum of an empty tensor", kind="Min"
    ),
    "maximum of a segment": Singular(
        lambda x: tf.square(segments(x)),
        [-1, -1, -1],
        "maximum or minimum of an empty segment",
        lambda x: tf.square(tf.where(segments(x) > -1e9, segments(x), 0.0)),
        kind="Square",
    ),
    "log_softmax": Singular(
        lambda x: tf.nn.log_softmax(masked(x)),
        [-1, -1, -1],
        "softmax over positions that are all masked",
        lambda x: tf.nn.log_softmax(masked(x, -1e9)),
        kind="LogSoftmax",
    ),
    "logsumexp": Singular(
        lambda x: tf.reduce_logsumexp(masked(x), 1, keepdims=True),
        [-1, -1, -1],
        "logsumexp over positions that are all masked",
        lambda x: tf.where(
            tf.reduce_any(x > 0, 1, keepdims=True),
            tf.reduce_logsumexp(masked(x, -1e9), 1, keepdims=True),
            0.0,
        ),
    ),
    "erfinv": Singular(
        tf.math.erfinv,
        [1, 0.5, 0.5],
        "argument at the bound of the function's domain",
        lambda x: tf.math.erfinv(inside(x)),
    ),
    "atanh": Singular(
        tf.math.atanh,
        [1, 0.5, 0.5],
        "argument at the bound of the function's domain",
        lambda x: tf.math.atanh(inside(x)),
    ),
    "atanh of 2": Singular(
        tf.math.atanh,
        [2, 0.5, 0.5],
        "argument outside the function's domain",
        lambda x: tf.math.atanh(inside(x)),
    ),
    "lgamma": Singular(
        tf.math.lgamma,
        [0, 1, 1],
        "argument at a pole of the function",
        lambda x: tf.math.lgamma(positive(x)),
    ),
    "log determinant": Singular(
        lambda x: tf.linalg.slogdet(square_matrix(x))[1][:, None],
        [1, 2, 2, 4],
        "singular matrix",
        lambda x: tf.linalg.slogdet(square_matrix(x) + EYE)[1][:, None],
    ),
    "inverse": Singular(
        lambda x: tf.linalg.inv(square_matrix(x)),
        [1, 2, 2, 4],
        "a matrix that cannot be inverted or decomposed",
        lambda x: tf.linalg.inv(square_matrix(x) + EYE),
        kind="MatrixInverse",
    ),
    "cholesky": Singular(
        lambda x: tf.linalg.cholesky(square_matrix(x)),
        [0, 0, 0, 0],
        "singular matrix",
        kind="Cholesky",
    ),
    "root of a variance": Singular(
        lambda x: tf.sqrt(difference_of_moments(x)),
        [0.58, 0.58, 0.58],
        "root of a negative number",
        lambda x: tf.sqrt(tf.maximum(difference_of_moments(x), 0.0) + 1e-6),
        kind="Sqrt",
        advice="rounding",
    ),
    "root of an output": Singular(
        tf.sqrt,
        [-1, 0.5, 0.5],
        "root of a negative number",
        lambda x: tf.sqrt(tf.nn.softplus(x)),
        kind="Sqrt",
        advice="softplus",
    ),
    "power of an output": Singular(
        lambda x: x**0.5,
        [-1, 0.5, 0.5],
        "root of a negative number",
        lambda x: tf.nn.softplus(x) ** 0.5,
        kind="Pow",
    ),
    "exponential": Singular(
        tf.exp,
        [100, 0, 0],
        "overflow of an exponential",
        lambda x: tf.exp(tf.minimum(x, 20.0)),
    ),
    "cast to float16": Singular(
        lambda x: tf.cast(tf.cast(x, tf.float16), tf.float32),
        [1e6, 1, 2],
        "overflow of float16",
        lambda x: tf.cast(tf.cast(x, tf.bfloat16), tf.float32),
        kind="Cast",
        advice="dtype='float32'",
    ),
    "sum of an fft": Singular(magnitudes, [3e38] * 4, "overflow", kind="RFFT"),
    "not in the table": Singular(
        tf.math.special.expint,
        [0, 1, 1],
        "singular at these inputs",
        lambda x: tf.math.special.expint(positive(x)),
        kind="Expint",
    ),
    "NaN in a constant": Singular(
        lambda x: x * np.float32("nan"),
        [1, 1, 1],
        "a NaN that no operation of the step produced",
    ),
    # Faults of the backward pass.
    "atan2": backward(
        lambda x: tf.math.atan2(x[:, :1], x[:, 1:]),
        [0, 0],
        "gradient of an angle at the origin",
        lambda x: tf.math.atan2(x[:, :1], x[:, 1:] + 1e-6),
        "Atan2",
    ),
    "angle": backward(
        lambda x: tf.math.angle(tf.complex(x[:, :1], x[:, 1:])),
        [0, 0],
        "gradient of an angle at the origin",
        lambda x: tf.math.angle(tf.complex(x[:, :1] + 1e-6, x[:, 1:])),
        "Angle",
    ),
    "euclidean norm": backward(
        lambda x: tf.math.reduce_euclidean_norm(x, 1, keepdims=True),
        [0, 0],
        "gradient of a norm at 0",
        safe_norm,
        "EuclideanNorm",
    ),
    "norm": backward(norm, [0, 0], "gradient of a root at 0", safe_norm, "Sqrt"),
    "norm of Keras": backward(
        lambda x: ops.norm(x, axis=1, keepdims=True),
        [0, 0],
        "gradient of a root at 0",
        safe_norm,
        "Sqrt",
    ),
    "standard deviation": backward(
        lambda x: tf.math.reduce_std(x, 1, keepdims=True),
        [0.5, 0.5, 0.5],
        "gradient of a root at 0",
        lambda x: tf.sqrt(variance(x) + 1e-6),
        "Sqrt",
    ),
    "x log x": backward(
        lambda x: tf.math.multiply_no_nan(tf.math.log(x), x),
        [0, 0, 0],
        "gradient of a logarithm at 0",
        lambda x: tf.math.multiply_no_nan(tf.math.log(positive(x)), x),
        "Log",
    ),
    "power in where": backward(
        lambda x: tf.where(x > 0, x**-2.0, 0.0),
        [0, 0, 0],
        "gradient of a power at 0",
        lambda x: tf.where(x > 0, (x + 1e-3) ** -2.0, 0.0),
        "Pow",
    ),
    "division in where": backward(
        lambda x: tf.where(x > 0, 1.0 / x, 0.0),
        [0, 0, 0],
        "gradient of a division by a number too small",
        lambda x: tf.where(x > 0, 1.0 / positive(x), 0.0),
        "RealDiv",
    ),
    "acosh": backward(
        lambda x: tf.math.acosh(1 + x),
        [0, 1, 1],
        "gradient at the bound of the function's domain",
        lambda x: tf.math.acosh(tf.maximum(1 + x, 1 + 1e-6)),
        "Acosh",
    ),
    "asin": backward(
        tf.math.asin,
        [1, 0.5, 0.5],
        "gradient at the bound of the function's domain",
        lambda x: tf.math.asin(inside(x)),
        "Asin",
    ),
    "large gradient of a root": Singular(
        lambda x: amplified(tf.sqrt(x)), [1e-8] * 3, "overflow", place="backward", kind="Sqrt"
    ),
    "qr": backward(
        lambda x: tf.linalg.qr(square_matrix(x))[0],
        [1, 2, 2, 4],
        "gradient of the decomposition of a singular matrix",
        lambda x: tf.linalg.qr(square_matrix(x) + DIAGONAL)[0],
        "Qr",
    ),
    "gradient not in the table": backward(
        lambda x: tf.math.igamma(0.5 * ONE(x), x),
        [0, 1, 1],
        "gradient that is singular at these inputs",
        lambda x: tf.math.igamma(0.5 * ONE(x), positive(x)),
        "Igamma",
    ),
    "erfinv in where": Singular(
        lambda x: tf.where(x < 1, tf.math.erfinv(x), 0.0),
        [1, 0.5, 0.5],
        "argument at the bound of the function's domain, in a branch of where() that is not taken",
        lambda x: tf.where(x < 1, tf.math.erfinv(tf.where(x < 1, x, 0.5)), 0.0),
        kind="Erfinv",
    ),
    "exponential in where": Singular(
        lambda x: tf.where(x < 50, tf.exp(x), 0.0),
        [100, 0, 0],
        "overflow of an exponential, in a branch of where() that is not taken",
        lambda x: tf.where(x < 50, tf.exp(tf.where(x < 50, x, 0.5)), 0.0),
        kind="Exp",
    ),
    # TensorFlow itself gives 0 for the gradient, XLA NaN.
    "root in where": Singular(
        lambda x: tf.where(x > 0, tf.sqrt(tf.maximum(x, 0.0)), 0.0),
        [0, 0, 0],
        "gradient of a root at 0",
        lambda x: tf.where(x > 0, tf.sqrt(tf.maximum(x, 0.0) + 1e-6), 0.0),
        "backward",
        "Sqrt",
        compiled=True,
    ),
    "reciprocal root in where": Singular(
        lambda x: tf.where(x > 0, tf.math.rsqrt(x), 0.0),
        [0, 0, 0],
        "division by the root of a variance of 0, in a branch of where() that is not taken",
        lambda x: tf.where(x > 0, tf.math.rsqrt(tf.where(x > 0, x, 0.5)), 0.0),
        kind="Rsqrt",
        compiled=True,
    ),
    # TensorFlow defines these gradients as finite, so a replay finds no fault.
    "root of an fft": Singular(lambda x: tf.sqrt(magnitudes(x)), [0] * 4, None, place="none"),
    "svd": Singular(
        lambda x: tf.linalg.svd(square_matrix(x))[1][:, :, 0], [1, 0, 0, 1], None, place="none"
    ),
    "eigh": Singular(
        lambda x: tf.linalg.eigh(square_matrix(x))[1][:, :, 0], [1, 0, 0, 1], None, place="none"
    ),
    "cumprod": Singular(lambda x: tf.math.cumprod(x, 1), [0, 0, 0], None, place="none"),
    "tan": Singular(tf.math.tan, [1.5707964, 0, 0], None, place="none"),
}
