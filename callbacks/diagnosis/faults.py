"""The ways in which finite numbers become NaN or infinite, and what to do about each."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Fault:
    """A way to lose a finite number.

    Attributes:
        name: in a few words.
        remedy: what to do.
        is_overflow: whether a wider range of numbers would have helped.
    """

    name: str
    remedy: str
    is_overflow: bool = False


BAD_DATA = Fault(
    "the data is not finite",
    "Clean the data before training: drop or fill what is NaN or infinite, and check what "
    "divides or takes logarithms in the input pipeline.",
)
BAD_WEIGHT = Fault(
    "a weight is not finite",
    "It was lost before this step: go back to a checkpoint from before that. A NonFiniteGuard "
    "that is attached from the first step on names the step that loses a weight.",
)
LOG_OF_ZERO = Fault(
    "logarithm of 0",
    "Keep the argument above 0, log(x + epsilon) or log(maximum(x, epsilon)) with an epsilon of "
    "1e-6, say; for a probability use a loss with from_logits=True, which never forms it.",
)
LOG_OF_NEGATIVE = Fault(
    "logarithm of a negative number",
    "The argument must be positive: make it so by softplus or exp, or check the sign of what "
    "comes in.",
)
DIVISION_BY_ZERO = Fault(
    "division by 0",
    "Divide by maximum(x, epsilon) where x is not negative, by x + epsilon where the sign of "
    "epsilon is that of x, or use keras.ops.divide_no_nan, which gives 0.",
)
ZERO_BY_ZERO = Fault(
    "0 divided by 0",
    "What is averaged or normalised is empty or all 0: divide by maximum(count, 1) or "
    "maximum(total, epsilon), or use keras.ops.divide_no_nan.",
)
ZERO_VARIANCE = Fault(
    "division by the root of a variance of 0",
    "All values that are normalised are equal. Give the normalisation an epsilon above 0 (1e-3 "
    "as in Keras, larger in float16).",
)
ROOT_OF_NEGATIVE = Fault(
    "root of a negative number",
    "The argument is a small difference of larger numbers, such as a variance computed as E[x²] - "
    "E[x]², and rounding has made it negative: take the root of maximum(x, 0) + epsilon.",
)
GRADIENT_OF_ROOT = Fault(
    "gradient of a root at 0",
    "The slope of a root at 0 is infinite, that of a norm undefined: use sqrt(x + epsilon). A "
    "where() around it does not help, since the branch that is not taken has a gradient too.",
)
GRADIENT_OF_LOG = Fault(
    "gradient of a logarithm at 0",
    "Keep the argument itself above 0, log(maximum(x, epsilon)). A where() around the logarithm "
    "does not help: the branch that is not taken has a gradient too, and 0 times infinity is NaN.",
)
GRADIENT_OF_POWER = Fault(
    "gradient of a power at 0",
    "The slope of x**p at 0 is infinite for p below 1: raise x + epsilon to the power.",
)
GRADIENT_OF_DIVISION = Fault(
    "gradient of a division by a number too small",
    "The slope of a/x goes with 1/x²: keep the divisor above an epsilon, as in "
    "a / maximum(x, epsilon). A where() around the division does not help: the branch that is "
    "not taken has a gradient too.",
)
OUT_OF_DOMAIN = Fault(
    "argument outside the function's domain",
    "Clip the argument to the domain, for arcsin and arccos to -1 + epsilon .. 1 - epsilon.",
)
GRADIENT_AT_BOUND = Fault(
    "gradient at the bound of the function's domain",
    "The slope is infinite there: clip the argument to -1 + epsilon .. 1 - epsilon with an "
    "epsilon of 1e-6, say (for acosh, to 1 + epsilon and above).",
)
EXP_OVERFLOW = Fault(
    "overflow of an exponential",
    "float32 holds exp(x) up to x = 88, float16 up to x = 11: subtract the maximum first "
    "(softmax, logsumexp), use softplus, or bound x, minimum(x, 20).",
    is_overflow=True,
)
HALF_OVERFLOW = Fault(
    "overflow of float16",
    "float16 ends at 65,504. Use mixed_bfloat16, or keep this layer in float32 (dtype='float32').",
    is_overflow=True,
)
OVERFLOW = Fault(
    "overflow",
    "The numbers have grown too large for their dtype: lower the learning rate, clip gradients "
    "(ClipAdvisor recommends a limit), normalise inputs and activations, or choose gated or orthogonal "
    "recurrent layers.",
    is_overflow=True,
)
ALL_MASKED = Fault(
    "softmax over positions that are all masked",
    "A row whose every score is -inf has no largest one. Mask with a large finite number (-1e9, "
    "in float16 -3e4) instead of -inf, or leave out rows without a valid position.",
)
MEANT_INFINITY = Fault(
    "an infinity brought in on purpose has reached the loss",
    "A mask of -inf stands where the loss looks, such as at the class that is the right one: "
    "check the mask, or fill with a large finite number (-1e9, in float16 -3e4).",
)
INDETERMINATE = Fault(
    "infinity minus infinity, or 0 times infinity",
    "An infinity was brought in on purpose, and then reckoned with: replace it by a large finite "
    "number.",
)
REFUSED = Fault(
    "an operation refuses what it is given",
    "Run one by one on a CPU, operations check what a GPU or XLA takes as it is and answers with "
    "NaN: look for class numbers or indices outside their range.",
)
UNKNOWN = Fault(
    "an operation of finite numbers gave one that is not",
    "Look at the operation's inputs above, and bound them.",
)
LATE_WHERE = Fault(
    "NaN in the data that a where() replaces too late",
    "The loss is finite, since where() leaves these numbers out; its gradient is not, since 0 "
    "times NaN is NaN. Replace the NaN before the first arithmetic, with the prediction in a "
    "target, y = where(isnan(y), prediction, y), and with 0 in an input.",
)
BAD_SAMPLE_WEIGHT = Fault(
    "a sample weight is not finite",
    "Keras multiplies class_weight into the sample weights. Check both for NaN and infinity, such "
    "as 1 / count of a class that does not occur: use 1 / maximum(count, 1).",
)
EMPTY_BATCH = Fault(
    "a batch without examples",
    "The mean over no example is 0/0. A last batch smaller than the number of replicas leaves a "
    "replica without examples: batch the dataset with drop_remainder=True.",
)
UNDERFLOW = Fault(
    "logarithm of an exponential that is 0 by underflow",
    "In float32 exp(x) is 0 for x below -104, and its logarithm is infinite. Compute with "
    "logarithms throughout: for a mixture use logsumexp(log_weights + log_densities), with "
    "log_softmax for the weights. An epsilon inside the logarithm gives a finite loss, and a "
    "gradient of 0 for such an example.",
)
DIVISION_BY_SMALL = Fault(
    "division by a number too small",
    "Divide by maximum(x, epsilon), with an epsilon of 1e-6, say, and the sign of x if x can be "
    "negative.",
)
ZERO_NORM = Fault(
    "0 divided by 0",
    "The divisor is a norm or a standard deviation of 0. Add an epsilon under the root, x / "
    "sqrt(sum(x²) + epsilon), or use keras.ops.normalize. An epsilon outside the root leaves its "
    "gradient infinite.",
)
POLE = Fault(
    "argument at a pole of the function",
    "The function is infinite there. Keep the argument above 0, maximum(x, epsilon) or "
    "softplus(x) + epsilon.",
)
AT_BOUND = Fault(
    "argument at the bound of the function's domain",
    "The function is infinite there: clip the argument, for atanh and erfinv to -1 + epsilon .. 1 "
    "- epsilon with an epsilon of 1e-6, say.",
)
MEAN_OF_NOTHING = Fault(
    "mean of nothing",
    "The selection that is averaged is empty. Sum it and divide by maximum(count, 1), or skip an "
    "example without a selected element.",
)
EXTREME_OF_NOTHING = Fault(
    "maximum or minimum of nothing",
    "The selection is empty, and its maximum or minimum infinite. Give an empty selection a "
    "fixed number, where(count > 0, maximum, 0.0).",
)
EMPTY_SEGMENT = Fault(
    "maximum or minimum of an empty segment",
    "TensorFlow gives an empty segment the lowest (or highest) number of the dtype. Replace it, "
    "where(count > 0, result, 0), before computing with it.",
)
SINGULAR_MATRIX = Fault(
    "singular matrix",
    "Add a multiple of the identity, matrix + epsilon * eye(n), with an epsilon of 1e-3 of the "
    "diagonal, say; for a covariance also make sure that there are more examples than features.",
)
NOT_INVERTIBLE = Fault(
    "a matrix that cannot be inverted or decomposed",
    "Run on a CPU, the operation refuses the matrix; under XLA or on a GPU it gives NaN. Add a "
    "multiple of the identity, matrix + epsilon * eye(n), with an epsilon of 1e-3 of the "
    "diagonal, say.",
)
GRADIENT_OF_MATRIX = Fault(
    "gradient of the decomposition of a singular matrix",
    "The gradient divides by differences of eigenvalues or by a diagonal with a 0. Add a small "
    "matrix with distinct diagonal elements, such as diag(linspace(1e-3, 2e-3, n)), or stop the "
    "gradient there.",
)
ROOT_OF_NEGATIVE_ARGUMENT = Fault(
    "root of a negative number",
    "The argument is too far below 0 for a rounding error. If it is an output of the network, "
    "make the output positive, with activation='softplus'; otherwise check the sign of what comes "
    "in.",
)
GRADIENT_OF_ANGLE = Fault(
    "gradient of an angle at the origin",
    "The angle of a vector of length 0 has no gradient. Keep the vector away from the origin, "
    "atan2(y, x + epsilon) with an epsilon of 1e-6, say, for x that is not negative, or replace "
    "it by where() before atan2.",
)
GRADIENT_OF_NORM = Fault(
    "gradient of a norm at 0",
    "The norm has no gradient at 0: use sqrt(sum(x²) + epsilon). A where() around it does not "
    "help, since the branch that is not taken has a gradient too.",
)
HALF_OVERFLOW_BACKWARD = Fault(
    "overflow of float16",
    "float16 ends at 65,504. Compile with a LossScaleOptimizer, which skips such a step and "
    "lowers its scale, use mixed_bfloat16, or keep this layer in float32 (dtype='float32').",
    is_overflow=True,
)
ALL_MASKED_SUM = Fault(
    "logsumexp over positions that are all masked",
    "The sum of no exponential is 0, and its logarithm infinite. Mask with a large finite number "
    "(-1e9, in float16 -3e4) instead of -inf, and replace the result of a row without a valid "
    "position, where(any(mask, axis), result, 0.0).",
)
SINGULAR = Fault(
    "singular at these inputs",
    "The operation has no finite result at these inputs, in float64 either: a wider dtype, a "
    "lower learning rate and clipping do not help. Keep the inputs away from this point, by an "
    "epsilon or by a where() before the operation.",
)
SINGULAR_GRADIENT = Fault(
    "gradient that is singular at these inputs",
    "The operation has no finite gradient at these inputs, in float64 either. Keep the "
    "operation's inputs away from this point, by an epsilon or by a where() before the operation; "
    "a where() behind it does not help.",
)
FROM_OUTSIDE = Fault(
    "a NaN that no operation of the step has made",
    "It was in a constant, in a NumPy array, or in what Python code returned: check the constants "
    "in this line.",
)
UPDATE_OF_RATE = Fault(
    "overflow of the optimizer's update",
    "The learning rate is too large for the gradients: lower it.",
    is_overflow=True,
)
UPDATE_OF_GRADIENT = Fault(
    "overflow of the optimizer's update",
    "The gradients are finite, and too large for the optimizer's arithmetic (Adam squares them). "
    "Clip each number, clipvalue=1.0, since a norm would overflow as well, or scale the loss "
    "down.",
    is_overflow=True,
)
EPSILON_ZERO = Fault(
    "the optimizer divides 0 by 0",
    "The optimizer's epsilon is 0, and a gradient has been 0 in every step so far: set "
    "epsilon=1e-7.",
)
EPSILON_UNDERFLOW = Fault(
    "the optimizer divides 0 by 0",
    "The optimizer's epsilon is 0 in the variables' dtype: set epsilon=1e-4, or keep the "
    "variables in float32 (mixed_float16 in place of float16).",
)
ZERO_CONSTRAINT = Fault(
    "a constraint divides by a norm of 0",
    "A weight vector is all 0: divide by norm + epsilon, as keras.constraints.UnitNorm does, or "
    "start from random weights.",
)


def not_taken(fault: Fault) -> Fault:
    """The fault for an operation in the branch of a where() that is not taken."""
    return Fault(
        f"{fault.name}, in a branch of where() that is not taken",
        "The loss is finite, since where() leaves these numbers out; its gradient is not, since "
        "0 times infinity is NaN. Replace the argument before the function: "
        "safe = where(condition, x, 0.5), then where(condition, function(safe), other).",
        fault.is_overflow,
    )


UPDATE_BY_HAND = Fault(
    "overflow of the optimizer's update",
    "The gradients are finite, and the step that they make is not: lower the learning rate, or "
    "clip the gradients before the update.",
    is_overflow=True,
)
