"""Singular functions of JAX: those of `planted_operations`, with the same verdicts."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.scipy import special
from keras import ops

BAD_ROW = 2


class Singular(NamedTuple):
    """Function of the rows of a batch, singular in one row.

    Attributes:
        function: the function.
        row: numbers of the singular row; other rows contain numbers from 0.2 to 0.8.
        cause: name of the fault; None where all values are finite.
        place: place in the verdict.
        primitive: the primitive, or the one whose gradient is bad; None if it is not tested.
        advice: part of the remedy's text.
    """

    function: Callable[[Any], Any]
    row: list[float]
    cause: str | None
    place: str = "forward"
    primitive: str | None = None
    advice: str = ""

    @property
    def x(self) -> np.ndarray:
        x = np.random.default_rng(0).uniform(0.2, 0.8, (4, len(self.row)))
        x[BAD_ROW] = self.row
        return x.astype("float32")


def square_matrix(x: Any) -> Any:
    return jnp.reshape(x, (-1, 2, 2))


def difference_of_moments(x: Any) -> Any:
    """Return E[x²] - E[x]², which is -3e-8 for three times 0.58."""
    return jnp.mean(x * x, 1, keepdims=True) - jnp.mean(x, 1, keepdims=True) ** 2


def masked(x: Any) -> Any:
    return jnp.where(x > 0, x, -jnp.inf)


def centred(x: Any) -> Any:
    return x - jnp.mean(x, 1, keepdims=True)


def variance(x: Any) -> Any:
    return jnp.var(x, 1, keepdims=True)


@jax.custom_gradient
def amplified(x: Any) -> Any:
    """Return a value with a large gradient for one of three numbers and 0 for the others."""
    return x, lambda gradient: gradient * jnp.array([0, 3e38, 0])


ONE = jnp.ones_like
OVERFLOW_OF_EXP = "overflow of an exponential"
BOUND, OUTSIDE = (
    "argument at the bound of the function's domain",
    "argument outside the function's domain",
)
AT_BOUND = "gradient at the bound of the function's domain"
NOT_TAKEN = ", in a branch of where() that is not taken"
OF_ROOT, OF_LOG = "gradient of a root at 0", "gradient of a logarithm at 0"
OF_ANGLE, OF_MATRIX = (
    "gradient of an angle at the origin",
    "gradient of the decomposition of a singular matrix",
)

SINGULAR = {
    "xlogy": Singular(lambda x: special.xlogy(ONE(x), x), [0, 0, 0], "logarithm of 0"),
    "xlog1py": Singular(lambda x: special.xlog1py(ONE(x), x), [-1, -1, -1], "logarithm of 0"),
    "log of a negative": Singular(
        jnp.log, [-1, 1, 1], "logarithm of a negative number", primitive="log"
    ),
    "inverse softplus": Singular(lambda x: jnp.log(jnp.expm1(x)), [0, 0, 0], "logarithm of 0"),
    "log before an fft": Singular(
        lambda x: jnp.abs(jnp.fft.rfft(jnp.log(x))),
        [0, 0, 0, 0],
        "logarithm of 0",
        primitive="log",
    ),
    "mixture density": Singular(
        lambda x: -jnp.log(jnp.sum(0.5 * jnp.exp(-x) / 2.0, 1, keepdims=True)),
        [200, 300],
        "logarithm of an exponential that is 0 by underflow",
        primitive="log",
        advice="logsumexp(",
    ),
    "remainder": Singular(
        lambda x: jnp.mod(ONE(x), x), [0, 0, 0], "division by 0", primitive="rem"
    ),
    "negative power": Singular(lambda x: x**-2.0, [0, 0, 0], "division by 0", primitive="pow"),
    "negative integer power": Singular(
        lambda x: x**-2, [0, 0, 0], "division by 0", primitive="integer_pow"
    ),
    "division by 2e-37": Singular(
        lambda x: 100 / x, [2e-37, 1, 1], "division by a number too small", primitive="div"
    ),
    "temperature of 0": Singular(
        lambda x: jax.nn.softmax(x[:, 1:] / x[:, :1]), [0, 0, 0], "0 divided by 0"
    ),
    "standardised": Singular(
        lambda x: centred(x) / jnp.sqrt(variance(x)),
        [0.5, 0.5, 0.5],
        "0 divided by 0",
        advice="under the root",
    ),
    "normalised": Singular(
        lambda x: centred(x) * jax.lax.rsqrt(variance(x)),
        [0.5, 0.5, 0.5],
        "division by the root of a variance of 0",
        primitive="rsqrt",
    ),
    "infinity on purpose": Singular(
        lambda x: x * jnp.where(x > 0, 1.0, jnp.inf),
        [0, 1, 1],
        "infinity minus infinity, or 0 times infinity",
        primitive="mul",
    ),
    "divided by its norm": Singular(
        lambda x: x / jnp.linalg.norm(x, axis=1, keepdims=True), [0, 0, 0], "0 divided by 0"
    ),
    "log_softmax": Singular(
        lambda x: jax.nn.log_softmax(masked(x)),
        [-1, -1, -1],
        "softmax over positions that are all masked",
    ),
    "logsumexp": Singular(
        lambda x: special.logsumexp(masked(x), 1, keepdims=True),
        [-1, -1, -1],
        "logsumexp over positions that are all masked",
    ),
    "erfinv": Singular(special.erfinv, [1, 0.5, 0.5], BOUND),
    "atanh": Singular(jnp.arctanh, [1, 0.5, 0.5], BOUND),
    "atanh of 2": Singular(jnp.arctanh, [2, 0.5, 0.5], OUTSIDE),
    "lgamma": Singular(special.gammaln, [0, 1, 1], "argument at a pole of the function"),
    "inverse": Singular(
        lambda x: jnp.linalg.inv(square_matrix(x)), [1, 2, 2, 4], "singular matrix"
    ),
    "cholesky": Singular(
        lambda x: jnp.linalg.cholesky(square_matrix(x)),
        [0, 0, 0, 0],
        "singular matrix",
        primitive="cholesky",
    ),
    "root of a variance": Singular(
        lambda x: jnp.sqrt(difference_of_moments(x)),
        [0.58, 0.58, 0.58],
        "root of a negative number",
        primitive="sqrt",
        advice="rounding",
    ),
    "root of an output": Singular(
        jnp.sqrt,
        [-1, 0.5, 0.5],
        "root of a negative number",
        primitive="sqrt",
        advice="softplus",
    ),
    "power of an output": Singular(
        lambda x: x**0.5, [-1, 0.5, 0.5], "root of a negative number", primitive="pow"
    ),
    "exponential": Singular(jnp.exp, [100, 0, 0], OVERFLOW_OF_EXP),
    "cast to float16": Singular(
        lambda x: x.astype("float16").astype("float32"),
        [1e6, 1, 2],
        "overflow of float16",
        primitive="convert_element_type",
        advice="dtype='float32'",
    ),
    "sum of an fft": Singular(
        lambda x: jnp.abs(jnp.fft.rfft(x)), [3e38] * 4, "overflow", primitive="fft"
    ),
    "NaN in a constant": Singular(
        lambda x: x * np.float32("nan"),
        [1, 1, 1],
        "a NaN that no operation of the step produced",
    ),
    # Faults of the backward pass.
    "atan2": Singular(
        lambda x: jnp.arctan2(x[:, :1], x[:, 1:]), [0, 0], OF_ANGLE, "backward", "atan2"
    ),
    "angle": Singular(
        lambda x: jnp.angle(x[:, :1] + 1j * x[:, 1:]), [0, 0], OF_ANGLE, "backward", "atan2"
    ),
    "norm": Singular(
        lambda x: jnp.linalg.norm(x, axis=1, keepdims=True), [0, 0], OF_ROOT, "backward", "sqrt"
    ),
    "norm of Keras": Singular(
        lambda x: ops.norm(x, axis=1, keepdims=True), [0, 0], OF_ROOT, "backward", "sqrt"
    ),
    "standard deviation": Singular(
        lambda x: jnp.std(x, 1, keepdims=True), [0.5] * 3, OF_ROOT, "backward", "sqrt"
    ),
    "power in where": Singular(
        lambda x: jnp.where(x > 0, x**-2.0, 0.0),
        [0, 0, 0],
        "gradient of a power at 0",
        "backward",
        "pow",
    ),
    "division in where": Singular(
        lambda x: jnp.where(x > 0, 1.0 / x, 0.0),
        [0, 0, 0],
        "gradient of a division by a number too small",
        "backward",
        "div",
    ),
    "acosh": Singular(lambda x: jnp.arccosh(1 + x), [0, 1, 1], AT_BOUND, "backward", "acosh"),
    "asin": Singular(jnp.arcsin, [1, 0.5, 0.5], AT_BOUND, "backward", "asin"),
    "large gradient of a root": Singular(
        lambda x: amplified(jnp.sqrt(x)), [1e-8] * 3, "overflow", "backward", "sqrt"
    ),
    "qr": Singular(
        lambda x: jnp.linalg.qr(square_matrix(x))[0], [0, 0, 0, 0], OF_MATRIX, "backward", "qr"
    ),
    "gradient not in the table": Singular(
        lambda x: special.gammainc(0.5 * ONE(x), x),
        [0, 1, 1],
        "gradient that is singular at these inputs",
        "backward",
        "igamma",
    ),
    "erfinv in where": Singular(
        lambda x: jnp.where(x < 1, special.erfinv(x), 0.0), [1, 0.5, 0.5], BOUND + NOT_TAKEN
    ),
    "exponential in where": Singular(
        lambda x: jnp.where(x < 50, jnp.exp(x), 0.0), [100, 0, 0], OVERFLOW_OF_EXP + NOT_TAKEN
    ),
    "root in where": Singular(
        lambda x: jnp.where(x > 0, jnp.sqrt(jnp.maximum(x, 0.0)), 0.0),
        [0, 0, 0],
        OF_ROOT,
        "backward",
        "sqrt",
    ),
    "reciprocal root in where": Singular(
        lambda x: jnp.where(x > 0, jax.lax.rsqrt(x), 0.0),
        [0, 0, 0],
        "division by the root of a variance of 0" + NOT_TAKEN,
        primitive="rsqrt",
    ),
    "svd": Singular(lambda x: jnp.linalg.svd(square_matrix(x))[1], [1, 0, 0, 1], None, "none"),
    "cumprod": Singular(lambda x: jnp.cumprod(x, 1), [0, 0, 0], None, "none"),
    # JAX has no product that is 0 for 0 times infinity, and computes a determinant with `log`.
    "x log x": Singular(
        lambda x: jnp.where(x == 0, 0, x * jnp.log(x)), [0, 0, 0], "logarithm of 0" + NOT_TAKEN
    ),
    "log determinant": Singular(
        lambda x: jnp.linalg.slogdet(square_matrix(x))[1][:, None],
        [1, 2, 2, 4],
        "logarithm of 0",
    ),
    # JAX returns NaN where TensorFlow defines the gradient as finite.
    "root of an fft": Singular(
        lambda x: jnp.sqrt(jnp.abs(jnp.fft.rfft(x))), [0] * 4, OF_ROOT, "backward", "sqrt"
    ),
    "eigh": Singular(
        lambda x: jnp.linalg.eigh(square_matrix(x))[1][:, :, 0],
        [1, 0, 0, 1],
        OF_MATRIX,
        "backward",
        "eigh",
    ),
    "normalised by Keras": Singular(
        ops.normalize,
        [0, 0, 0],
        "division by the root of a variance of 0",
        primitive="rsqrt",
    ),
}

EXCLUDED = {
    "xdivy, multiply_no_nan, reduce_euclidean_norm": "JAX has no such function",
    "mean, maximum and minimum of a selection": "a shape must not depend on values",
    "maximum of a segment": "it is -inf, an intentional infinity",
    "tan": "Adam's square of its large gradient depends on the initial weights",
    "not in the table": "every singular primitive of JAX is in the table",
}
