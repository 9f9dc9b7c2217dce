"""Causes of NaN and infinity, each with its remedy."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Fault:
    """A cause of NaN or infinity.

    Attributes:
        name: a short description.
        remedy: advice for the user.
        is_overflow: whether a dtype with a wider range would have prevented it.
    """

    name: str
    remedy: str
    is_overflow: bool = False


BAD_DATA = Fault(
    "the data is not finite",
    "Clean the data before training: drop or fill NaN and infinity. Check divisions and "
    "logarithms in the input pipeline.",
)
BAD_WEIGHT = Fault(
    "a weight is not finite",
    "The weight was NaN or infinite before this step: restore a checkpoint in which it is finite. "
    "Attach a NonFiniteGuard from the first step on; it names the step at which a weight becomes "
    "non-finite.",
)
LOG_OF_ZERO = Fault(
    "logarithm of 0",
    "Keep the argument above 0: use log(x + epsilon) or log(maximum(x, epsilon)), for example "
    "with an epsilon of 1e-6. For a probability, use a loss with from_logits=True, which "
    "computes the logarithm from the logits.",
)
LOG_OF_NEGATIVE = Fault(
    "logarithm of a negative number",
    "The argument must be positive: apply softplus or exp to it, or check the sign of the inputs.",
)
DIVISION_BY_ZERO = Fault(
    "division by 0",
    "Divide by maximum(x, epsilon) if x is not negative. If x can be negative, add an epsilon "
    "with the sign of x. Alternatively, use keras.ops.divide_no_nan, which returns 0.",
)
ZERO_BY_ZERO = Fault(
    "0 divided by 0",
    "The values that are averaged or normalised are empty or all 0: divide by maximum(count, 1) "
    "or maximum(total, epsilon), or use keras.ops.divide_no_nan.",
)
ZERO_VARIANCE = Fault(
    "division by the root of a variance of 0",
    "All values that are normalised are equal. Set the epsilon of the normalisation above 0 "
    "(Keras uses 1e-3; use a larger one in float16).",
)
ROOT_OF_NEGATIVE = Fault(
    "root of a negative number",
    "The argument is a small difference of larger numbers, for example a variance computed as "
    "E[x²] - E[x]², and rounding made it negative: use sqrt(maximum(x, 0) + epsilon).",
)
GRADIENT_OF_ROOT = Fault(
    "gradient of a root at 0",
    "The derivative of a root is infinite at 0, and that of a norm is undefined: use sqrt(x + "
    "epsilon). A where() around the root does not help, because the branch that is not taken is "
    "differentiated as well.",
)
GRADIENT_OF_LOG = Fault(
    "gradient of a logarithm at 0",
    "Keep the argument above 0: use log(maximum(x, epsilon)). A where() around the logarithm "
    "does not help, because the branch that is not taken is differentiated as well, and 0 "
    "times infinity is NaN.",
)
GRADIENT_OF_POWER = Fault(
    "gradient of a power at 0",
    "The derivative of x**p at 0 is infinite for p < 1: use (x + epsilon)**p.",
)
GRADIENT_OF_DIVISION = Fault(
    "gradient of a division by a number too small",
    "The derivative of a/x is proportional to 1/x²: keep the divisor above an epsilon, as in a / "
    "maximum(x, epsilon). A where() around the division does not help, because the branch that "
    "is not taken is differentiated as well.",
)
OUT_OF_DOMAIN = Fault(
    "argument outside the function's domain",
    "Clip the argument to the domain. For arcsin and arccos, clip it to [-1 + epsilon, 1 - "
    "epsilon].",
)
GRADIENT_AT_BOUND = Fault(
    "gradient at the bound of the function's domain",
    "The derivative is infinite there: clip the argument to [-1 + epsilon, 1 - epsilon], for "
    "example with an epsilon of 1e-6. For acosh, keep the argument at 1 + epsilon or above.",
)
EXP_OVERFLOW = Fault(
    "overflow of an exponential",
    "exp(x) overflows in float32 for x above 88 and in float16 for x above 11: subtract the "
    "maximum first (softmax, logsumexp), use softplus, or bound x with minimum(x, 20).",
    is_overflow=True,
)
HALF_OVERFLOW = Fault(
    "overflow of float16",
    "The largest float16 number is 65,504. Use mixed_bfloat16, or keep this layer in float32 "
    "(dtype='float32').",
    is_overflow=True,
)
OVERFLOW = Fault(
    "overflow",
    "The numbers are too large for their dtype: lower the learning rate, clip the gradients "
    "(ClipAdvisor recommends a limit), normalise inputs and activations, or use gated or "
    "orthogonal recurrent layers.",
    is_overflow=True,
)
ALL_MASKED = Fault(
    "softmax over positions that are all masked",
    "A row in which every score is -inf has no finite maximum. Mask with a large finite number "
    "(-1e9, in float16 -3e4) instead of -inf, or drop rows without a valid position.",
)
INTENTIONAL_INFINITY = Fault(
    "an intentional infinity reaches the loss",
    "A mask of -inf covers a position that the loss reads, for example the correct class: check "
    "the mask, or fill with a large finite number (-1e9, in float16 -3e4).",
)
INDETERMINATE = Fault(
    "infinity minus infinity, or 0 times infinity",
    "An intentional infinity was used in arithmetic: replace it by a large finite number.",
)
REFUSED = Fault(
    "an operation rejects its inputs",
    "On a CPU, operations check their inputs. On a GPU or under XLA, they return NaN instead. Look "
    "for class numbers or indices outside their range.",
)
UNKNOWN = Fault(
    "an operation returned a non-finite result for finite inputs",
    "Check the operation's inputs above, and bound them.",
)
LATE_WHERE = Fault(
    "NaN in the data that a where() replaces too late",
    "The loss is finite, because where() discards these values. Its gradient is not, because 0 "
    "times NaN is NaN. Replace the NaN before the first arithmetic operation: in a target with "
    "the prediction, y = where(isnan(y), prediction, y), and in an input with 0.",
)
BAD_SAMPLE_WEIGHT = Fault(
    "a sample weight is not finite",
    "Keras multiplies class_weight into the sample weights. Check both for NaN and infinity, for "
    "example 1 / count of a class without examples: use 1 / maximum(count, 1).",
)
EMPTY_BATCH = Fault(
    "a batch without examples",
    "The mean over 0 examples is 0/0. If the last batch is smaller than the number of replicas, "
    "a replica has no examples: batch the dataset with drop_remainder=True.",
)
UNDERFLOW = Fault(
    "logarithm of an exponential that is 0 by underflow",
    "In float32, exp(x) is 0 for x below -104, and the logarithm of 0 is infinite. Compute with "
    "logarithms throughout: for a mixture, use logsumexp(log_weights + log_densities), with "
    "log_softmax for the weights. An epsilon inside the logarithm makes the loss finite, but the "
    "gradient of such an example is 0.",
)
DIVISION_BY_SMALL = Fault(
    "division by a number too small",
    "Divide by maximum(x, epsilon), for example with an epsilon of 1e-6. If x can be negative, "
    "bound its magnitude and keep its sign.",
)
ZERO_NORM = Fault(
    "0 divided by 0",
    "The divisor is a norm or a standard deviation of 0. Add an epsilon under the root, x / "
    "sqrt(sum(x²) + epsilon). With an epsilon outside the root, the gradient of the root remains "
    "infinite.",
)
POLE = Fault(
    "argument at a pole of the function",
    "The function is infinite there. Keep the argument above 0: use maximum(x, epsilon) or "
    "softplus(x) + epsilon.",
)
AT_BOUND = Fault(
    "argument at the bound of the function's domain",
    "The function is infinite there: clip the argument. For atanh and erfinv, clip it to [-1 + "
    "epsilon, 1 - epsilon], for example with an epsilon of 1e-6.",
)
MEAN_OF_NOTHING = Fault(
    "mean of an empty tensor",
    "The values that are averaged are an empty selection. Compute their sum and divide by "
    "maximum(count, 1), or skip examples without a selected element.",
)
EXTREME_OF_NOTHING = Fault(
    "maximum or minimum of an empty tensor",
    "The maximum or minimum of an empty selection is infinite. Replace it by a constant: "
    "where(count > 0, maximum, 0.0).",
)
EMPTY_SEGMENT = Fault(
    "maximum or minimum of an empty segment",
    "The result of an empty segment is the lowest (or highest) number of the dtype. "
    "Replace it before further computation: where(count > 0, result, 0).",
)
SINGULAR_MATRIX = Fault(
    "singular matrix",
    "Add a multiple of the identity, matrix + epsilon * eye(n), for example with an epsilon of "
    "1e-3 times the diagonal. For a covariance, also use more examples than features.",
)
NOT_INVERTIBLE = Fault(
    "a matrix that cannot be inverted or decomposed",
    "On a CPU, the operation rejects the matrix; under XLA or on a GPU, it returns NaN. Add a "
    "multiple of the identity, matrix + epsilon * eye(n), for example with an epsilon of 1e-3 "
    "times the diagonal.",
)
GRADIENT_OF_MATRIX = Fault(
    "gradient of the decomposition of a singular matrix",
    "The gradient divides by differences of eigenvalues or by a diagonal that contains 0. Add a "
    "small matrix with distinct diagonal elements, for example diag(linspace(1e-3, 2e-3, n)), or "
    "apply stop_gradient to the decomposition.",
)
ROOT_OF_NEGATIVE_ARGUMENT = Fault(
    "root of a negative number",
    "The argument is too far below 0 for a rounding error. If it is an output of the network, "
    "make it positive with activation='softplus'. Otherwise, check the sign of the inputs.",
)
GRADIENT_OF_ANGLE = Fault(
    "gradient of an angle at the origin",
    "The angle of a vector of length 0 has no gradient. If x is not negative, use atan2(y, x + "
    "epsilon), for example with an epsilon of 1e-6. Otherwise, replace the zero vector with "
    "where() before atan2.",
)
GRADIENT_OF_NORM = Fault(
    "gradient of a norm at 0",
    "The norm has no gradient at 0: use sqrt(sum(x²) + epsilon). A where() around the norm does "
    "not help, because the branch that is not taken is differentiated as well.",
)
HALF_OVERFLOW_BACKWARD = Fault(
    "overflow of float16",
    "The largest float16 number is 65,504. Compile with a LossScaleOptimizer, which skips such a "
    "step and lowers its scale, use mixed_bfloat16, or keep this layer in float32 "
    "(dtype='float32').",
    is_overflow=True,
)
ALL_MASKED_SUM = Fault(
    "logsumexp over positions that are all masked",
    "The sum over 0 positions is 0, and its logarithm is infinite. Mask with a large finite "
    "number (-1e9, in float16 -3e4) instead of -inf. Replace the result of a row without a valid "
    "position: where(any(mask, axis), result, 0.0).",
)
SINGULAR = Fault(
    "singular at these inputs",
    "The operation has no finite result at these inputs, not even in float64: a wider dtype, a "
    "lower learning rate and clipping do not help. Keep the inputs away from this point with an "
    "epsilon, or with a where() before the operation.",
)
SINGULAR_GRADIENT = Fault(
    "gradient that is singular at these inputs",
    "The operation has no finite gradient at these inputs, not even in float64. Keep the "
    "operation's inputs away from this point with an epsilon, or with a where() before the "
    "operation. A where() after the operation does not help.",
)
FROM_OUTSIDE = Fault(
    "a NaN that no operation of the step produced",
    "The NaN is in a constant, in a NumPy array, or in the return value of Python code: check "
    "the constants in this line.",
)
UPDATE_OF_RATE = Fault(
    "overflow of the optimizer's update",
    "The learning rate is too large for the gradients: lower it.",
    is_overflow=True,
)
UPDATE_OF_GRADIENT = Fault(
    "overflow of the optimizer's update",
    "The gradients are finite but too large for the optimizer's arithmetic (Adam squares them). "
    "Clip each element with clipvalue=1.0 (a norm would overflow as well), or scale the loss down.",
    is_overflow=True,
)
EPSILON_ZERO = Fault(
    "the optimizer divides 0 by 0",
    "The optimizer's epsilon is 0, and a gradient was 0 in every step so far: set epsilon=1e-7.",
)
EPSILON_UNDERFLOW = Fault(
    "the optimizer divides 0 by 0",
    "The optimizer's epsilon is 0 in the dtype of the variables: set epsilon=1e-4, or keep the "
    "variables in float32 (mixed_float16 instead of float16).",
)
ZERO_CONSTRAINT = Fault(
    "a constraint divides by a norm of 0",
    "A weight vector is all 0: divide by norm + epsilon, as keras.constraints.UnitNorm does, or "
    "initialize the weights with random numbers.",
)


def not_taken(fault: Fault) -> Fault:
    """Return `fault` for an operation in the branch of a where() that is not taken."""
    return Fault(
        f"{fault.name}, in a branch of where() that is not taken",
        "The loss is finite, because where() discards these values. Its gradient is not, because "
        "0 times infinity is NaN. Replace the argument before the function: "
        "safe = where(condition, x, 0.5), then where(condition, function(safe), other).",
        fault.is_overflow,
    )


UPDATE_BY_HAND = Fault(
    "overflow of the optimizer's update",
    "The gradients are finite, but the update computed from them is not: lower the learning "
    "rate, or clip the gradients before the update.",
    is_overflow=True,
)
